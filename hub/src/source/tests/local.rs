//! Repositories on disk, and trees.

use std::{os::unix::fs::symlink, sync::Arc};

use windlass_render::{Entry, EntryKind, Tree, TreeError};

use super::fixture::{Work, checked, config, start, start_in, until};
use crate::source::{CommitId, LocalAccess, Repository, SourceConfig, SourceError};

fn text(tree: &Arc<dyn Tree>, path: &str) -> Option<String> {
    let content = tree.read(path).unwrap()?;
    Some(String::from_utf8(content.to_vec()).unwrap())
}

#[tokio::test]
async fn branch_tag_sha_and_head_resolve() {
    let work = Work::new();
    let first = work.head();
    work.git(&["tag", "light"]);
    work.git(&["tag", "-a", "v1.0.0", "-m", "annotated"]);
    let second = work.commit("app.yaml", "two");
    work.git(&["tag", "v1.4.0"]);
    work.git(&["branch", "same", first.as_str()]);
    work.git(&["tag", "same"]);
    let (_dir, sources) = start();
    let repository = work.local();
    for (reference, expect) in [
        ("main", &second),
        ("HEAD", &second),
        ("", &second),
        ("light", &first),
        ("v1.0.0", &first),
        ("^1.0", &second),
        ("~1.0", &first),
        ("same", &first),
        (first.as_str(), &first),
        (&first.as_str()[..7], &first),
    ] {
        let state = checked(&mut sources.subscribe(&repository, reference).await).await;
        assert_eq!(state.error, None, "{reference}");
        assert_eq!(state.commit.as_ref(), Some(expect), "{reference}");
        assert_eq!(sources.resolve(&repository, reference).await.as_ref(), Ok(expect));
    }
    let plain = Repository::new(work.path().to_str().unwrap());
    assert_eq!(sources.resolve(&plain, "main").await.as_ref(), Ok(&second));
}

#[tokio::test]
async fn bare_repositories_work_too() {
    let work = Work::new();
    let bare = work.dir.path().join("bare.git");
    work.git(&["clone", "-q", "--bare", ".", bare.to_str().unwrap()]);
    let (_dir, sources) = start();
    let repository = Repository::new(bare.to_str().unwrap());
    assert_eq!(sources.resolve(&repository, "main").await, Ok(work.head()));
}

#[tokio::test]
async fn what_does_not_exist_is_named() {
    let work = Work::new();
    let (dir, sources) = start();
    let error = sources.resolve(&work.local(), "nowhere").await.unwrap_err();
    assert!(error.to_string().contains("no branch, tag or commit \"nowhere\""), "{error}");
    let absent = "0123456789012345678901234567890123456789";
    assert!(matches!(sources.resolve(&work.local(), absent).await, Err(SourceError::UnknownReference { .. })));
    let missing = Repository::new(dir.path().join("missing").to_str().unwrap());
    assert!(matches!(sources.resolve(&missing, "main").await, Err(SourceError::NotFound { .. })));
    let state = checked(&mut sources.subscribe(&work.local(), "a..b").await).await;
    assert!(matches!(state.error, Some(SourceError::Reference { .. })));
    let refusing = start_in(SourceConfig { local: LocalAccess::Refused, ..config(dir.path()) });
    assert!(matches!(refusing.resolve(&work.local(), "main").await, Err(SourceError::LocalRefused { .. })));
}

#[tokio::test]
async fn an_empty_repository_has_no_head() {
    let dir = tempfile::tempdir().unwrap();
    let (_data, sources) = start();
    let work = Work::new();
    work.git(&["init", "-q", dir.path().to_str().unwrap()]);
    let repository = Repository::new(dir.path().to_str().unwrap());
    assert!(matches!(sources.resolve(&repository, "HEAD").await, Err(SourceError::UnknownReference { .. })));
}

#[tokio::test]
async fn a_forced_push_and_a_removed_repository_leave_the_last_commit_readable() {
    let work = Work::new();
    let (_dir, sources) = start();
    let repository = work.local();
    let old = work.commit("app.yaml", "old");
    let mut state = sources.subscribe(&repository, "main").await;
    until(&mut state, |state| state.commit.as_ref() == Some(&old)).await;

    work.git(&["reset", "-q", "--hard", "HEAD~1"]);
    let new = work.commit("app.yaml", "new");
    work.git(&["reflog", "expire", "--expire=now", "--all"]);
    work.git(&["gc", "-q", "--prune=now"]);
    assert_eq!(sources.refresh(&repository.url, Some("refs/heads/main")).await, 1);
    until(&mut state, |state| state.commit.as_ref() == Some(&new)).await;
    let tree = sources.tree(&repository, &old).await.unwrap();
    assert_eq!(text(&tree, "app.yaml").as_deref(), Some("old"));

    std::fs::remove_dir_all(work.path()).unwrap();
    sources.refresh(&repository.url, None).await;
    let last = until(&mut state, |state| state.error.is_some()).await;
    assert!(matches!(last.error, Some(SourceError::NotFound { .. })));
    assert_eq!(last.commit, Some(new.clone()));
    let tree = sources.tree(&repository, &new).await.unwrap();
    assert_eq!(text(&tree, "app.yaml").as_deref(), Some("new"));
}

#[tokio::test]
async fn trees_read_nested_files_and_follow_links_inside_only() {
    let work = Work::new();
    work.write("base/deep/er/file.yaml", "deep");
    work.write("base.txt", "after base/ in git, before it by name");
    let path = work.path();
    symlink("deep/er", path.join("base/short")).unwrap();
    symlink("../app.yaml", path.join("base/app")).unwrap();
    symlink("nothing", path.join("broken")).unwrap();
    symlink("../../outside", path.join("base/escape")).unwrap();
    symlink("/etc/passwd", path.join("absolute")).unwrap();
    symlink("loop", path.join("loop")).unwrap();
    let commit = work.commit_all();
    let (_dir, sources) = start();
    let tree = sources.tree(&work.local(), &commit).await.unwrap();

    assert_eq!(text(&tree, "base/deep/er/file.yaml").as_deref(), Some("deep"));
    assert_eq!(text(&tree, "base/short/file.yaml").as_deref(), Some("deep"));
    assert_eq!(text(&tree, "base/app").as_deref(), Some("one"));
    for absent in ["nope", "base", "broken", "app.yaml/x", "base/deep/nope/x"] {
        assert_eq!(tree.read(absent), Ok(None), "{absent}");
    }
    for refused in ["base/escape", "absolute", "loop", "../x", "/app.yaml", "a\0b", "base//x", "base/../app.yaml"] {
        assert!(matches!(tree.read(refused), Err(TreeError::Io { path, .. }) if path == refused));
    }
    let names: Vec<String> = tree.list("").unwrap().unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["absolute", "app.yaml", "base", "base.txt", "broken", "loop"]);
    let file = Entry { name: "file.yaml".to_owned(), kind: EntryKind::File };
    assert_eq!(tree.list("base/short"), Ok(Some(vec![file])));
    assert_eq!(tree.list("app.yaml"), Ok(None));
    assert_eq!(tree.object_id("base/short"), tree.object_id("base/deep/er"));
    let id = work.git(&["rev-parse", "HEAD:base/deep/er/file.yaml"]);
    assert_eq!(tree.object_id("base/deep/er/file.yaml").unwrap().as_deref(), Some(id.trim()));
    let root = work.git(&["rev-parse", "HEAD^{tree}"]);
    assert_eq!(tree.object_id("").unwrap().as_deref(), Some(root.trim()));
    assert_eq!(tree.object_id("nope"), Ok(None));
}

#[tokio::test]
async fn big_files_and_many_entries_are_refused_and_the_rest_is_read() {
    let work = Work::new();
    work.write("big.bin", vec![b'x'; 2000]);
    for index in 0..30 {
        work.write(&format!("many/{index}"), "x");
    }
    let commit = work.commit_all();
    let dir = tempfile::tempdir().unwrap();
    let sources = start_in(SourceConfig { max_file_bytes: 1000, ..config(dir.path()) });
    let tree = sources.tree(&work.local(), &commit).await.unwrap();
    let too_large = TreeError::TooLarge { path: "big.bin".to_owned(), size: 2000, limit: 1000 };
    assert_eq!(tree.read("big.bin"), Err(too_large));
    assert_eq!(text(&tree, "app.yaml").as_deref(), Some("one"));

    // The limit on reading is the tree's; the mirror was filled above with the larger one.
    let narrow = start_in(SourceConfig { max_tree_entries: 20, ..config(dir.path()) });
    let tree = narrow.tree(&work.local(), &commit).await.unwrap();
    assert_eq!(text(&tree, "app.yaml").as_deref(), Some("one"));
    assert!(matches!(tree.list("many"), Err(TreeError::TooLarge { limit: 20, .. })));
}

#[tokio::test]
async fn a_repository_over_the_limit_is_refused() {
    let work = Work::new();
    let commit: CommitId = work.commit("big.bin", vec![b'x'; 100_000]);
    let dir = tempfile::tempdir().unwrap();
    let sources = start_in(SourceConfig { max_repository_bytes: 50_000, ..config(dir.path()) });
    let error = sources.resolve(&work.local(), commit.as_str()).await.unwrap_err();
    assert!(matches!(error, SourceError::TooLarge { limit: "max_repository_bytes", .. }), "{error}");
}
