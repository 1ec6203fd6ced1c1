//! URLs, secrets and the choice of references.

use crate::source::{
    CommitId, Credentials, Repository, SourceError, normalize_url,
    reference::{ListedRef, Selected, Wanted},
    repository::{Place, redact},
};

fn listed(names: &[&str]) -> Vec<ListedRef> {
    let commit = |index: usize| CommitId::parse(&format!("{index:040x}")).unwrap();
    names
        .iter()
        .enumerate()
        .map(|(index, name)| ListedRef { name: (*name).to_owned(), target: commit(index) })
        .collect()
}

#[track_caller]
fn check_select(wanted: &str, expect: Option<&str>) {
    let refs = listed(&[
        "HEAD",
        "refs/tags/same",
        "refs/heads/same",
        "refs/heads/main",
        "refs/heads/deadbee",
        "refs/heads/1.x",
        "refs/tags/v1.2.0",
        "refs/tags/v1.10.0",
        "refs/tags/v2.0.0-rc.1",
    ]);
    let selected = match Wanted::parse(wanted).unwrap().select(&refs) {
        Selected::Ref(found) => Some(found.name),
        Selected::Abbreviated(prefix) => Some(format!("abbreviated {prefix}")),
        Selected::Unknown => None,
    };
    assert_eq!(selected.as_deref(), expect, "{wanted}");
}

#[test]
fn references_are_chosen_in_a_fixed_order() {
    check_select("", Some("HEAD"));
    check_select("HEAD", Some("HEAD"));
    check_select("main", Some("refs/heads/main"));
    check_select("refs/heads/main", Some("refs/heads/main"));
    check_select("same", Some("refs/heads/same"));
    check_select("refs/tags/same", Some("refs/tags/same"));
    check_select("tags/same", Some("refs/tags/same"));
    check_select("v1.2.0", Some("refs/tags/v1.2.0"));
    check_select("1.2.0", None);
    check_select("^1.2", Some("refs/tags/v1.10.0"));
    check_select("1.x", Some("refs/tags/v1.10.0"));
    check_select("3.x", None);
    check_select("deadbee", Some("refs/heads/deadbee"));
    check_select("ABCDEF1", Some("abbreviated abcdef1"));
    check_select("abcdef", None);
    check_select("missing", None);
}

#[test]
fn names_that_git_forbids_are_refused() {
    for text in ["a..b", "a b", "-\u{7}", "a^", "a:b", "/a", "a/", "a//b", ".a", "a.lock", "a@{1}", "@", "a\\b", "a."] {
        assert!(matches!(Wanted::parse(text), Err(SourceError::Reference { .. })), "{text:?}");
    }
    assert!(Wanted::parse(&"a".repeat(2000)).is_err());
}

#[test]
fn a_push_affects_what_it_can_move() {
    let affected = |wanted: &str, pushed: &str| Wanted::parse(wanted).unwrap().affected_by(pushed);
    assert!(affected("main", "refs/heads/main"));
    assert!(affected("refs/heads/main", "refs/heads/main"));
    assert!(affected("refs/heads/main", "main"));
    assert!(affected("tags/v1", "refs/tags/v1"));
    assert!(!affected("refs/tags/main", "refs/heads/main"));
    assert!(!affected("main", "refs/heads/other"));
    assert!(affected("HEAD", "refs/heads/other"));
    assert!(!affected("HEAD", "refs/tags/v1"));
    assert!(affected("^1", "refs/tags/v1.1.0"));
    assert!(!affected("^1", "refs/heads/main"));
    assert!(!affected(&"a".repeat(40), "refs/heads/main"));
}

#[test]
fn spellings_of_one_repository_are_equal() {
    for url in [
        "https://github.com/acme/App",
        "https://github.com/acme/App.git",
        "https://GitHub.com/acme/App.git/",
        "https://user:secret@github.com:443/acme/App.git",
        "http://github.com/acme/App",
        "git@github.com:acme/App.git",
        "ssh://git@github.com:22/acme/App.git",
        "git://github.com/acme/App.git",
    ] {
        assert_eq!(normalize_url(url), "github.com/acme/App", "{url}");
    }
    assert_eq!(normalize_url("file:///srv/app.git"), "/srv/app");
    assert_eq!(normalize_url("/srv/app"), "/srv/app");
    assert_ne!(normalize_url("https://github.com/acme/app"), normalize_url("https://github.com/acme/App"));
    assert_ne!(normalize_url("https://h:8443/a"), normalize_url("https://h/a"));
}

#[test]
fn secrets_never_show() {
    let url = "https://bob:hunter2@git.example.com/a/b.git";
    assert_eq!(redact(url), "https://git.example.com/a/b.git");
    assert_eq!(redact("https://bob:hun/ter2@host/a"), "https://host/a");
    assert_eq!(redact("https://host/a@b"), "https://host/a@b");
    let repository = Repository::new(url).with_credentials(Credentials::Token("hunter3".to_owned()));
    let basic = Credentials::Basic { username: "bob".to_owned(), password: "hunter4".to_owned() };
    let parsed = repository.parse().unwrap();
    let shown = format!("{repository:?} {basic:?} {parsed:?} {:?}", parsed.fingerprint());
    assert!(!shown.contains("hunter"), "{shown}");
    assert!(matches!(&parsed.place, Place::Http(url) if url.as_str() == "https://git.example.com/a/b.git"));
}

#[test]
fn credentials_in_the_url_count_unless_others_are_given() {
    let embedded = Repository::new("https://b%40b:p%3Aw@h/a").parse().unwrap().credentials;
    let expect = Credentials::Basic { username: "b@b".to_owned(), password: "p:w".to_owned() };
    assert_eq!(embedded, Some(expect));
    let token = Credentials::Token("t".to_owned());
    let given = Repository::new("https://b:p@h/a").with_credentials(token.clone());
    assert_eq!(given.parse().unwrap().credentials, Some(token));
}

#[test]
fn unsupported_urls_say_so_without_secrets() {
    for (url, part) in [
        ("git@github.com:a/b.git", "ssh is not supported yet"),
        ("ssh://git:hunter2@github.com/a/b.git", "ssh is not supported yet"),
        ("ftp://u:hunter2@host/a", "scheme \"ftp\" is not supported"),
        ("", "empty"),
        ("relative/path", "neither a URL nor an absolute path"),
        ("file://relative", "must be absolute"),
        ("https://u:hunter2@", "repository"),
        ("https://host/a?token=1", "no query"),
    ] {
        let error = Repository::new(url).parse().unwrap_err().to_string();
        assert!(error.contains(part), "{url}: {error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}
