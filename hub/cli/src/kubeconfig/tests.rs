//! Contexts chosen, entries kept, files private.

use super::*;

fn session(name: &str, server: &str) -> Session {
    Session {
        name: name.to_owned(),
        server: server.to_owned(),
        authority: Some(b"PEM".to_vec()),
        tls_server_name: None,
        insecure: false,
        token: "secret".to_owned(),
        namespace: "argocd".to_owned(),
    }
}

fn foreign() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "prod", "preferences": {"colors": true},
        "clusters": [{"name": "prod", "cluster": {"server": "https://prod", "extensions": [{"name": "x"}]}}],
        "users": [{"name": "prod", "user": {"exec": {"command": "login"}}}],
        "contexts": [{"name": "prod", "context": {"cluster": "prod", "user": "prod"}}],
    })
}

#[test]
fn login_keeps_everything_else() {
    let mut config = foreign();
    upsert(&mut config, &session("windlass", "https://hub:7443"), Current::WhenNone);
    assert_eq!(json::text(&config, &["current-context"]), "prod");
    assert_eq!(entry(&config, "users", "prod"), Some(&json!({"exec": {"command": "login"}})));
    assert_eq!(config["preferences"], json!({"colors": true}));
    let cluster = json!({"server": "https://hub:7443", "certificate-authority-data": "UEVN"});
    assert_eq!(entry(&config, "clusters", "windlass"), Some(&cluster));
    let context = json!({"cluster": "windlass", "user": "windlass", "namespace": "argocd"});
    assert_eq!(entry(&config, "contexts", "windlass"), Some(&context));

    upsert(
        &mut config,
        &Session { token: "new".to_owned(), ..session("windlass", "https://hub:7443") },
        Current::Always,
    );
    assert_eq!(names(&config, "users").collect::<Vec<_>>(), ["prod", "windlass"]);
    assert_eq!(entry(&config, "users", "windlass"), Some(&json!({"token": "new"})));
    assert_eq!(json::text(&config, &["current-context"]), "windlass");
}

#[test]
fn an_empty_file_gets_a_current_context() {
    let mut config = Value::Null;
    upsert(&mut config, &session("windlass", "https://hub:7443"), Current::WhenNone);
    assert_eq!(json::text(&config, &["current-context"]), "windlass");
    assert_eq!(json::text(&config, &["kind"]), "Config");
}

#[test]
fn a_second_hub_gets_a_name_of_its_own() {
    let mut config = foreign();
    assert_eq!(context_name(&config, "https://one:7443"), "windlass");
    upsert(&mut config, &session("windlass", "https://one:7443"), Current::WhenNone);
    assert_eq!(context_name(&config, "https://one:7443"), "windlass");
    assert_eq!(context_name(&config, "https://two:7443"), "windlass-two");
    assert_eq!(context_name(&config, "https://[::1]:7443"), "windlass-::1");
}

#[test]
fn our_context_goes_before_a_foreign_current_one() {
    let mut config = foreign();
    assert_eq!(choose(&config).unwrap().as_deref(), Some("prod"));
    upsert(&mut config, &session("windlass-one", "https://one:7443"), Current::WhenNone);
    assert_eq!(choose(&config).unwrap().as_deref(), Some("windlass-one"));
    upsert(&mut config, &session("windlass-two", "https://two:7443"), Current::WhenNone);
    assert!(choose(&config).unwrap_err().to_string().contains("windlass-one, windlass-two"));
    json::set(&mut config, &["current-context"], json!("windlass-two"));
    assert_eq!(choose(&config).unwrap().as_deref(), Some("windlass-two"));
    assert_eq!(choose(&json!({})).unwrap(), None);
}

#[test]
fn of_several_files_the_first_wins_and_paths_are_resolved() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    write(&one, &json!({"users": [{"name": "a", "user": {"token": "1"}}]})).unwrap();
    let clusters = json!([{"name": "c", "cluster": {"certificate-authority": "ca.crt"}}]);
    let users = json!([{"name": "a", "user": {"token": "2"}}, {"name": "b", "user": {"token": "3"}}]);
    write(&two, &json!({"current-context": "x", "users": users, "clusters": clusters})).unwrap();
    let absent = folder.path().join("absent");
    let merged = Files { paths: vec![absent.clone(), one.clone(), two], required: false }.load().unwrap();
    assert_eq!(entry(&merged, "users", "a"), Some(&json!({"token": "1"})));
    assert_eq!(entry(&merged, "users", "b"), Some(&json!({"token": "3"})));
    assert_eq!(json::text(&merged, &["current-context"]), "x");
    let authority = json::text(entry(&merged, "clusters", "c").unwrap(), &["certificate-authority"]).to_owned();
    assert_eq!(authority, folder.path().join("ca.crt").to_string_lossy());
    let files = Files { paths: vec![absent.clone()], required: true };
    assert!(files.load().unwrap_err().to_string().contains("windlass login"));
    assert_eq!(Files { paths: vec![absent, one.clone()], required: false }.target().unwrap(), one);
}

#[cfg(unix)]
#[test]
fn a_kubeconfig_is_private_and_a_link_stays_one() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep").join("config");
    write(&path, &json!({"kind": "Config"})).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let link = folder.path().join("link");
    symlink(&path, &link).unwrap();
    write(&link, &json!({"kind": "Other"})).unwrap();
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(read(&path).unwrap(), Some(json!({"kind": "Other"})));
}
