//! Repositories on a server: authentication, slow and broken servers, sharing, repair.

use std::{path::PathBuf, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};

use super::fixture::{Behaviour, Server, Work, checked, config, start, start_in, until};
use crate::source::{Credentials, Repository, SourceConfig, SourceError};

fn basic(username: &str, password: &str) -> (Credentials, Behaviour) {
    let credentials = Credentials::Basic { username: username.to_owned(), password: password.to_owned() };
    let expected = format!("Basic {}", STANDARD.encode(format!("{username}:{password}")));
    (credentials, Behaviour::Demand(expected))
}

#[tokio::test]
async fn branch_tag_sha_and_head_resolve_over_http() {
    let work = Work::new();
    let first = work.head();
    work.git(&["tag", "-a", "v1.0.0", "-m", "annotated"]);
    let second = work.commit("dir/app.yaml", "two");
    work.git(&["checkout", "-q", "-b", "side", first.as_str()]);
    let side = work.commit("app.yaml", "side");
    work.git(&["checkout", "-q", "main"]);
    let server = Server::start(work.dir.path()).await;
    let (_dir, sources) = start();
    let repository = server.repository();
    for (reference, expect) in [
        ("main", &second),
        ("HEAD", &second),
        ("v1.0.0", &first),
        ("1.x", &first),
        ("side", &side),
        (second.as_str(), &second),
        (&side.as_str()[..8], &side),
    ] {
        let state = checked(&mut sources.subscribe(&repository, reference).await).await;
        assert_eq!(state.error, None, "{reference}");
        assert_eq!(state.commit.as_ref(), Some(expect), "{reference}");
    }
    let tree = sources.tree(&repository, &second).await.unwrap();
    assert_eq!(tree.read("dir/app.yaml").unwrap().as_deref(), Some(&b"two"[..]));
    let state = checked(&mut sources.subscribe(&repository, "nowhere").await).await;
    assert!(matches!(state.error, Some(SourceError::UnknownReference { .. })));
    let absent = sources.resolve(&repository, "0123456").await.unwrap_err();
    assert!(matches!(absent, SourceError::UnknownReference { .. }), "{absent}");
    let absent = sources.resolve(&repository, &"01".repeat(20)).await.unwrap_err();
    assert!(matches!(absent, SourceError::UnknownReference { .. }), "{absent}");
}

#[tokio::test]
async fn a_commit_that_nobody_follows_is_fetched_for_its_tree() {
    let work = Work::new();
    let first = work.head();
    work.commit("app.yaml", "two");
    let server = Server::start(work.dir.path()).await;
    let (_dir, sources) = start();
    let tree = sources.tree(&server.repository(), &first).await.unwrap();
    assert_eq!(tree.read("app.yaml").unwrap().as_deref(), Some(&b"one"[..]));
}

#[tokio::test]
async fn a_push_arrives_by_refresh_and_a_forced_push_too() {
    let work = Work::new();
    let server = Server::start(work.dir.path()).await;
    let (_dir, sources) = start();
    let mut state = sources.subscribe(&server.repository(), "main").await;
    checked(&mut state).await;
    let next = work.commit("app.yaml", "next");
    // The spelling of the webhook need not be that of the Application.
    let spelling = server.url("repo/.git/").replace("http://", "https://someone@");
    assert_eq!(sources.refresh(&spelling, Some("refs/heads/other")).await, 0);
    assert_eq!(sources.refresh(&spelling, Some("refs/heads/main")).await, 1);
    until(&mut state, |state| state.commit.as_ref() == Some(&next)).await;

    work.git(&["reset", "-q", "--hard", "HEAD~1"]);
    let forced = work.commit("app.yaml", "forced");
    sources.refresh(&spelling, None).await;
    until(&mut state, |state| state.commit.as_ref() == Some(&forced)).await;
    for (commit, content) in [(&next, &b"next"[..]), (&forced, &b"forced"[..])] {
        let tree = sources.tree(&server.repository(), commit).await.unwrap();
        assert_eq!(tree.read("app.yaml").unwrap().as_deref(), Some(content));
    }
}

#[tokio::test]
async fn a_branch_may_become_a_directory_of_branches() {
    let work = Work::new();
    work.git(&["branch", "a"]);
    let server = Server::start(work.dir.path()).await;
    let (_dir, sources) = start();
    sources.resolve(&server.repository(), "a").await.unwrap();
    work.git(&["branch", "-D", "a"]);
    work.git(&["checkout", "-q", "-b", "a/b"]);
    let commit = work.commit("app.yaml", "b");
    assert_eq!(sources.resolve(&server.repository(), "a/b").await, Ok(commit));
}

#[tokio::test]
async fn basic_authentication_and_tokens_are_understood() {
    let work = Work::new();
    let server = Server::start(work.dir.path()).await;
    let (_dir, sources) = start();
    let (credentials, demand) = basic("bob", "hunter2");
    server.behave(demand);
    let repository = server.repository().with_credentials(credentials);
    assert_eq!(sources.resolve(&repository, "main").await, Ok(work.head()));
    let embedded = Repository::new(server.url("repo/.git").replace("http://", "http://bob:hunter2@"));
    assert_eq!(sources.resolve(&embedded, "main").await, Ok(work.head()));

    let token = Credentials::Token("hunter3".to_owned());
    let repository = server.repository().with_credentials(token);
    server.behave(Behaviour::Demand("Bearer hunter3".to_owned()));
    let next = work.commit("app.yaml", "next");
    assert_eq!(sources.resolve(&repository, "main").await, Ok(next));
    // As GitHub, which takes a token only as a password.
    server.behave(basic("x-access-token", "hunter3").1);
    let next = work.commit("app.yaml", "again");
    assert_eq!(sources.resolve(&repository, "main").await, Ok(next));
}

#[tokio::test]
async fn wrong_credentials_get_a_sentence_without_a_secret() {
    let work = Work::new();
    let server = Server::start(work.dir.path()).await;
    let (_dir, sources) = start();
    server.behave(basic("bob", "right").1);
    let wrong = server.repository().with_credentials(basic("bob", "hunter2").0);
    let state = checked(&mut sources.subscribe(&wrong, "main").await).await;
    let error = state.error.unwrap();
    assert!(error.to_string().contains("refuses the credentials of user \"bob\""), "{error}");
    let embedded = Repository::new(server.url("repo/.git").replace("http://", "http://bob:hunter2@"));
    let error2 = sources.resolve(&embedded, "main").await.unwrap_err();
    assert!(!format!("{error} {error:?} {error2} {error2:?}").contains("hunter2"));
    let error = sources.resolve(&server.repository(), "main").await.unwrap_err();
    assert!(error.to_string().contains("none are configured"), "{error}");
}

#[tokio::test]
async fn a_mirror_is_not_read_with_credentials_that_the_server_refuses() {
    let work = Work::new();
    let server = Server::start(work.dir.path()).await;
    let (_dir, sources) = start();
    let (credentials, demand) = basic("bob", "hunter2");
    server.behave(demand);
    let repository = server.repository().with_credentials(credentials);
    let commit = sources.resolve(&repository, "main").await.unwrap();
    assert!(sources.tree(&repository, &commit).await.is_ok());
    for stranger in [server.repository(), server.repository().with_credentials(basic("eve", "x").0)] {
        let refused = sources.tree(&stranger, &commit).await.err();
        assert!(matches!(refused, Some(SourceError::Unauthorized { .. })), "{refused:?}");
    }
}

#[tokio::test]
async fn what_the_server_lacks_is_named() {
    let work = Work::new();
    let server = Server::start(work.dir.path()).await;
    let (_dir, sources) = start();
    let missing = Repository::new(server.url("missing.git"));
    assert!(matches!(sources.resolve(&missing, "main").await, Err(SourceError::NotFound { .. })));
    server.behave(Behaviour::Fail(503));
    let error = sources.resolve(&server.repository(), "main").await.unwrap_err();
    assert!(error.to_string().contains("503"), "{error}");
    let url = server.url("repo/.git");
    drop(server);
    // Nobody listens on port 1 of loopback.
    let gone = Repository::new(format!("http://127.0.0.1:1/{}", url.len()));
    let error = sources.resolve(&gone, "main").await.unwrap_err();
    assert!(matches!(error, SourceError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn slow_servers_are_cut_and_the_last_commit_stays() {
    let work = Work::new();
    let server = Server::start(work.dir.path()).await;
    let dir = tempfile::tempdir().unwrap();
    // A loaded machine may make an honest server look slow once; the retry makes up for it.
    let sources = start_in(SourceConfig {
        stall_window: Duration::from_secs(1),
        retry_delay: Duration::from_millis(10),
        ..config(dir.path())
    });
    let repository = server.repository();
    let mut state = sources.subscribe(&repository, "main").await;
    let good = until(&mut state, |state| state.commit.is_some()).await.commit;
    assert_eq!(good, Some(work.head()));
    for slow in [Behaviour::Drip, Behaviour::DripAnswers, Behaviour::Silence] {
        server.behave(slow);
        sources.refresh(&repository.url, None).await;
        let cut = until(&mut state, |state| state.error.is_some()).await;
        assert!(matches!(cut.error, Some(SourceError::Stalled { .. })), "{:?}", cut.error);
        assert_eq!(cut.commit, good);
        server.behave(Behaviour::Serve);
        sources.refresh(&repository.url, None).await;
        until(&mut state, |state| state.error.is_none()).await;
    }
}

#[tokio::test]
async fn an_operation_ends_at_its_deadline() {
    let work = Work::new();
    let server = Server::start(work.dir.path()).await;
    let dir = tempfile::tempdir().unwrap();
    let sources = start_in(SourceConfig {
        operation_timeout: Duration::from_millis(300),
        stall_window: Duration::from_secs(600),
        ..config(dir.path())
    });
    server.behave(Behaviour::Drip);
    let error = sources.resolve(&server.repository(), "main").await.unwrap_err();
    assert!(matches!(error, SourceError::TimedOut { .. }), "{error}");
}

#[tokio::test]
async fn a_pack_over_the_limit_is_refused_and_the_last_commit_stays() {
    let work = Work::new();
    let server = Server::start(work.dir.path()).await;
    let dir = tempfile::tempdir().unwrap();
    let sources = start_in(SourceConfig { max_repository_bytes: 40_000, ..config(dir.path()) });
    let repository = server.repository();
    let mut state = sources.subscribe(&repository, "main").await;
    let good = checked(&mut state).await;
    assert_eq!(good.error, None);
    // Does not compress.
    let mut noise = blake3::Hasher::new().finalize_xof();
    let mut bytes = vec![0; 100_000];
    noise.fill(&mut bytes);
    work.commit("noise", bytes);
    sources.refresh(&repository.url, None).await;
    let refused = until(&mut state, |state| state.error.is_some()).await;
    assert!(
        matches!(refused.error, Some(SourceError::TooLarge { limit: "max_repository_bytes", .. })),
        "{:?}",
        refused.error
    );
    assert_eq!(refused.commit, good.commit);
    let tree = sources.tree(&repository, &good.commit.unwrap()).await.unwrap();
    assert_eq!(tree.read("app.yaml").unwrap().as_deref(), Some(&b"one"[..]));
}

#[tokio::test]
async fn subscribers_share_one_poller_that_ends_with_the_last() {
    let work = Work::new();
    let server = Server::start(work.dir.path()).await;
    let (_dir, sources) = start();
    let repository = server.repository();
    let mut receivers = Vec::new();
    for _ in 0..50 {
        receivers.push(sources.subscribe(&repository, "main").await);
    }
    for receiver in &mut receivers {
        assert_eq!(checked(receiver).await.commit, Some(work.head()));
    }
    assert_eq!(server.listings(), 2, "one to list, one to fetch");
    receivers.truncate(1);
    assert_eq!(sources.refresh(&repository.url, None).await, 1);
    drop(receivers);
    let gone = async {
        while sources.refresh(&repository.url, None).await > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone).await.expect("the poller ends");
}

#[tokio::test]
async fn a_pinned_commit_is_not_polled_again_and_an_unchanged_branch_is_only_listed() {
    let work = Work::new();
    let server = Server::start(work.dir.path()).await;
    let (_dir, sources) = start();
    let repository = server.repository();
    sources.resolve(&repository, "main").await.unwrap();
    let before = server.requests();
    sources.resolve(&repository, "main").await.unwrap();
    assert_eq!(server.requests() - before, 2, "info/refs and ls-refs");
    let before = server.requests();
    sources.resolve(&repository, work.head().as_str()).await.unwrap();
    assert_eq!(server.requests(), before);
}

#[tokio::test]
async fn redirects_are_followed_and_take_no_credentials_along() {
    let work = Work::new();
    let target = Server::start(work.dir.path()).await;
    let server = Server::start(work.dir.path()).await;
    server.behave(Behaviour::RedirectTo(target.url("").trim_end_matches('/').to_owned()));
    let (_dir, sources) = start();
    let repository = server.repository().with_credentials(basic("bob", "hunter2").0);
    assert_eq!(sources.resolve(&repository, "main").await, Ok(work.head()));
    assert!(server.authorized() > 0);
    assert_eq!(target.authorized(), 0);
}

/// Overwrites the middle of every pack of the only mirror below `data`.
fn damage(data: &std::path::Path) -> usize {
    let mut damaged = 0;
    let mut todo: Vec<PathBuf> = vec![data.join("git")];
    while let Some(path) = todo.pop() {
        for entry in std::fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|extension| extension == "pack") {
                let length = std::fs::metadata(&path).unwrap().len();
                std::fs::remove_file(&path).unwrap();
                std::fs::write(&path, vec![0; usize::try_from(length).unwrap()]).unwrap();
                damaged += 1;
            }
        }
    }
    damaged
}

#[tokio::test]
async fn a_damaged_mirror_is_cloned_again() {
    let work = Work::new();
    let server = Server::start(work.dir.path()).await;
    let dir = tempfile::tempdir().unwrap();
    let repository = server.repository();
    let commit = {
        let sources = start_in(config(dir.path()));
        sources.resolve(&repository, "main").await.unwrap()
    };
    assert!(damage(dir.path()) > 0);
    let sources = start_in(config(dir.path()));
    let tree = sources.tree(&repository, &commit).await.unwrap();
    assert_eq!(tree.read("app.yaml").unwrap().as_deref(), Some(&b"one"[..]));
    let next = work.commit("app.yaml", "next");
    assert_eq!(sources.resolve(&repository, "main").await, Ok(next));
}

#[tokio::test]
async fn too_many_packs_lead_to_a_new_clone_and_open_trees_stay_whole() {
    let work = Work::new();
    let first = work.head();
    let server = Server::start(work.dir.path()).await;
    let dir = tempfile::tempdir().unwrap();
    let sources = start_in(SourceConfig { max_packs: 2, rebuild_interval: Duration::ZERO, ..config(dir.path()) });
    let repository = server.repository();
    let tree = sources.tree(&repository, &first).await.unwrap();
    for round in 0..8 {
        let commit = work.commit("app.yaml", format!("round {round}"));
        assert_eq!(sources.resolve(&repository, "main").await, Ok(commit));
    }
    assert_eq!(tree.read("app.yaml").unwrap().as_deref(), Some(&b"one"[..]));
    let mirror = std::fs::read_dir(dir.path().join("git")).unwrap().next().unwrap().unwrap();
    let generations = std::fs::read_dir(mirror.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("gen-"))
        .count();
    assert!((2..=3).contains(&generations), "{generations}");
    assert!(!mirror.path().join("gen-1").exists() || generations == 3);
}

#[tokio::test]
async fn polls_come_by_themselves() {
    let work = Work::new();
    let server = Server::start(work.dir.path()).await;
    let dir = tempfile::tempdir().unwrap();
    let sources = start_in(SourceConfig {
        poll_period: Duration::from_millis(50),
        poll_jitter: Duration::from_millis(10),
        retry_delay: Duration::from_millis(10),
        ..config(dir.path())
    });
    let mut state = sources.subscribe(&server.repository(), "main").await;
    checked(&mut state).await;
    let next = work.commit("app.yaml", "next");
    until(&mut state, |state| state.commit.as_ref() == Some(&next)).await;
    server.behave(Behaviour::Fail(500));
    until(&mut state, |state| state.error.is_some()).await;
    server.behave(Behaviour::Serve);
    let back = until(&mut state, |state| state.error.is_none()).await;
    assert_eq!(back.commit, Some(next));
}

#[tokio::test]
async fn a_restart_keeps_the_mirror_and_removes_those_out_of_use() {
    let work = Work::new();
    let server = Server::start(work.dir.path()).await;
    let dir = tempfile::tempdir().unwrap();
    let repository = server.repository();
    let commit = start_in(config(dir.path())).resolve(&repository, "main").await.unwrap();
    let mirrors = || std::fs::read_dir(dir.path().join("git")).unwrap().count();
    // What a killed fetch leaves behind is no mirror.
    let mirror = std::fs::read_dir(dir.path().join("git")).unwrap().next().unwrap().unwrap().path();
    std::fs::create_dir(mirror.join("tmp-7")).unwrap();
    std::fs::create_dir(mirror.join("gen-9")).unwrap();

    let before = server.requests();
    let sources = start_in(config(dir.path()));
    assert_eq!(sources.resolve(&repository, "main").await, Ok(commit.clone()));
    assert_eq!(server.requests() - before, 2, "listed, not fetched");
    assert!(!mirror.join("tmp-7").exists() && !mirror.join("gen-9").exists());
    let one = sources.tree(&repository, &commit).await.unwrap();
    let two = sources.tree(&repository, &commit).await.unwrap();
    assert!(std::sync::Arc::ptr_eq(&one, &two));

    let old = std::time::SystemTime::now() - Duration::from_secs(15 * 24 * 3600);
    std::fs::File::options().write(true).open(mirror.join("used")).unwrap().set_modified(old).unwrap();
    assert_eq!(mirrors(), 1);
    let sources = start_in(config(dir.path()));
    assert!(sources.resolve(&work.local(), "main").await.is_ok());
    assert_eq!(mirrors(), 1, "the new one only");
    assert!(!mirror.exists());
}
