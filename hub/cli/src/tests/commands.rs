//! What commands print, ask for, and end with.

use clap::Parser as _;
use serde_json::{Value, json};
use windlass_protocol::json;

use super::{
    Captured,
    api::{Hub, TOKEN},
    captured,
};
use crate::{args::Arguments, command, failure};

const APPS: &str = "/apis/argoproj.io/v1alpha1/namespaces/argocd/applications";
const CLUSTERS: &str = "/apis/windlass.io/v1alpha1/clusters";

/// Exit code, stdout, stderr and the error.
#[derive(Debug)]
struct Ended {
    code: u8,
    data: String,
    talk: String,
    error: String,
}

async fn run(hub: &Hub, line: &str) -> Ended {
    let server =
        [format!("--server={}", hub.url), format!("--token={TOKEN}"), "--kubeconfig=/nonexistent/config".to_owned()];
    let words = std::iter::once("windlass").chain(line.split_whitespace()).map(str::to_owned).chain(server);
    run_words(words.collect()).await
}

async fn run_words(words: Vec<String>) -> Ended {
    windlass_transport::install_crypto_provider();
    let arguments = Arguments::try_parse_from(words).unwrap();
    let (mut output, data, talk): (_, Captured, Captured) = captured();
    let limit = std::time::Duration::from_secs(60);
    let result = tokio::time::timeout(limit, command::run(arguments, &mut output)).await.expect("a command hangs");
    let (code, error) = match &result {
        Ok(()) => (0, String::new()),
        Err(error) => (failure::code(error).unwrap_or_default(), format!("{error:#}")),
    };
    Ended { code, data: data.text(), talk: talk.text(), error }
}

fn app(name: &str, sync: &str, health: &str) -> Value {
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Application",
        "metadata": {"namespace": "argocd", "name": name, "uid": name},
        "spec": {"project": "shop", "destination": {"name": "eu-1", "namespace": "web"},
            "source": {"repoURL": "https://git/x", "path": name, "targetRevision": "main"}},
        "status": {"sync": {"status": sync, "revision": "0123456789abcdef"}, "health": {"status": health},
            "resources": [{"kind": "Service", "namespace": "web", "name": "web", "status": sync}]},
    })
}

/// A hub that does nothing.
fn idle(_: &mut Value) {}

/// A hub whose operations succeed at once.
fn succeed(object: &mut Value) {
    finish(object, "Succeeded", "successfully synced");
}

/// A hub whose operations fail.
fn fail(object: &mut Value) {
    finish(object, "Failed", "one object was refused");
}

fn finish(object: &mut Value, phase: &str, message: &str) {
    if json::remove(object, &["operation"]).is_none() {
        return;
    }
    let sync = if phase == "Succeeded" { "Synced" } else { "OutOfSync" };
    json::set(object, &["status", "sync", "status"], json!(sync));
    let state = json!({"phase": phase, "message": message, "startedAt": "2026-01-01T00:00:00Z",
        "finishedAt": "2026-01-01T00:00:02Z", "syncResult": {"revision": "0123456789abcdef"}});
    json::set(object, &["status", "operationState"], state);
}

async fn hub(reaction: fn(&mut Value), apps: &[Value]) -> Hub {
    let hub = Hub::start(reaction).await;
    for app in apps {
        hub.put(&format!("{APPS}/{}", json::text(app, &["metadata", "name"])), app.clone());
    }
    hub
}

#[tokio::test]
async fn app_list_prints_argos_table() {
    let hub = hub(idle, &[app("b", "OutOfSync", "Degraded"), app("a", "Synced", "Healthy")]).await;
    let ended = run(&hub, "app list").await;
    let expected = "\
NAME      CLUSTER  NAMESPACE  PROJECT  STATUS     HEALTH    SYNCPOLICY  CONDITIONS
argocd/a  eu-1     web        shop     Synced     Healthy   Manual      <none>
argocd/b  eu-1     web        shop     OutOfSync  Degraded  Manual      <none>
";
    assert_eq!((ended.code, ended.data.as_str()), (0, expected), "{ended:?}");
    assert_eq!(run(&hub, "app list -o name").await.data, "argocd/a\nargocd/b\n");
    assert_eq!(run(&hub, "app list -o name --path b").await.data, "argocd/b\n");
    assert_eq!(run(&hub, "app list -o name --project other").await.data, "");
    assert!(run(&hub, "app list -o wide").await.data.contains("https://git/x  a     main\n"));
    let list: Value = serde_json::from_str(&run(&hub, "app list -o json").await.data).unwrap();
    assert_eq!(list.as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn app_get_prints_the_page_and_absence_is_a_failure() {
    let hub = hub(idle, &[app("a", "Synced", "Healthy")]).await;
    let ended = run(&hub, "app get argocd/a").await;
    assert_eq!(ended.code, 0);
    assert!(ended.data.contains("Sync Status:        Synced to main (0123456)\n"), "{}", ended.data);
    assert!(ended.data.ends_with("       Service  web        web   Synced\n"), "{}", ended.data);
    let ended = run(&hub, "app get b").await;
    assert_eq!(ended.code, 1);
    assert!(ended.error.contains("not found"), "{}", ended.error);
}

#[tokio::test]
async fn app_get_refresh_waits_for_the_hub() {
    fn refreshed(object: &mut Value) {
        json::remove(object, &["metadata", "annotations"]);
        json::set(object, &["status", "sync", "status"], json!("OutOfSync"));
    }
    let hub = hub(refreshed, &[app("a", "Synced", "Healthy")]).await;
    let ended = run(&hub, "app get a --hard-refresh").await;
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.data.contains("OutOfSync from main"), "{}", ended.data);
}

#[tokio::test]
async fn app_sync_ends_as_its_operation_does() {
    let good = hub(succeed, &[app("a", "OutOfSync", "Healthy"), app("b", "OutOfSync", "Healthy")]).await;
    let ended = run(&good, "app sync a b --prune").await;
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(ended.data.matches("Phase:              Succeeded").count(), 2);
    assert!(ended.talk.starts_with("TIMESTAMP "), "{}", ended.talk);
    let bad = hub(fail, &[app("a", "OutOfSync", "Healthy")]).await;
    let ended = run(&bad, "app sync a").await;
    assert_eq!(ended.code, 1);
    assert!(ended.error.contains("phase Failed: one object was refused"), "{}", ended.error);
    let ended = run(&bad, "app sync --project nobodys").await;
    assert_eq!(ended.code, 1);
    assert!(ended.error.contains("no Application"), "{}", ended.error);
}

#[tokio::test]
async fn app_sync_asks_for_what_was_asked() {
    let hub = hub(idle, &[app("a", "OutOfSync", "Healthy")]).await;
    let line = "app sync a --async --prune --dry-run --force --revision v2 --resource :Service:web --server-side";
    let ended = run(&hub, line).await;
    assert_eq!((ended.code, ended.data.as_str()), (0, ""), "{ended:?}");
    let operation = hub.object(&format!("{APPS}/a")).unwrap()["operation"].clone();
    let sync = json!({
        "prune": true, "dryRun": true, "revision": "v2", "syncOptions": ["ServerSideApply=true"],
        "syncStrategy": {"hook": {"force": true}},
        "resources": [{"group": "", "kind": "Service", "namespace": "web", "name": "web"}],
    });
    assert_eq!(operation["sync"], sync);
    let ended = run(&hub, "app sync a").await;
    assert_eq!(ended.code, 1, "an operation is waiting already");
    assert!(ended.error.contains("windlass app wait --operation argocd/a"), "{}", ended.error);
}

#[tokio::test]
async fn app_wait_ends_when_the_watch_brings_it() {
    let hub = hub(idle, &[app("a", "OutOfSync", "Progressing")]).await;
    let change = async {
        hub.watched().await;
        hub.put(&format!("{APPS}/a"), app("a", "Synced", "Healthy"));
    };
    let (ended, ()) = tokio::join!(run(&hub, "app wait a --sync --health --timeout 60"), change);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.data.contains("Health Status:      Healthy"), "{}", ended.data);
}

#[tokio::test]
async fn app_wait_times_out_and_says_what_is_missing() {
    let hub = hub(idle, &[app("a", "Synced", "Degraded")]).await;
    let ended = run(&hub, "app wait a --timeout 1").await;
    assert_eq!(ended.code, 1);
    assert!(ended.error.contains("argocd/a: sync Synced, health Degraded, operation none"), "{}", ended.error);
    assert_eq!(run(&hub, "app wait a --degraded --timeout 60").await.code, 0);
    let ended = run(&hub, "app wait nobody --timeout 60").await;
    assert_eq!(ended.code, 1);
    assert!(ended.error.contains("argocd/nobody: does not exist"), "{}", ended.error);
}

#[tokio::test]
async fn app_wait_delete_sees_the_end() {
    let hub = hub(idle, &[app("a", "Synced", "Healthy")]).await;
    let change = async {
        hub.watched().await;
        hub.remove(&format!("{APPS}/a"));
    };
    let (ended, ()) = tokio::join!(run(&hub, "app wait a --delete --timeout 60"), change);
    assert_eq!(ended.code, 0, "{ended:?}");
}

#[tokio::test]
async fn app_delete_sets_the_finalizer_and_needs_a_yes() {
    let hub = hub(idle, &[app("a", "Synced", "Healthy")]).await;
    let ended = run(&hub, "app delete a").await;
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(hub.writes().is_empty());
    let ended = run(&hub, "app delete a --yes --cascade=background --wait").await;
    assert_eq!((ended.code, ended.data.as_str()), (0, "application 'argocd/a' deleted\n"), "{ended:?}");
    assert_eq!(hub.writes(), [format!("PATCH {APPS}/a"), format!("DELETE {APPS}/a")]);
    hub.put(&format!("{APPS}/b"), app("b", "Synced", "Healthy"));
    assert_eq!(run(&hub, "app delete b -y --cascade=false").await.code, 0);
    assert_eq!(hub.writes().len(), 3, "without a finalizer there is none to take away");
}

#[tokio::test]
async fn a_bad_token_and_no_hub_are_explained() {
    let hub = hub(idle, &[]).await;
    let words = ["windlass", "app", "list", "--token=bad", "--kubeconfig=/nonexistent/config"].map(str::to_owned);
    let ended = run_words(words.into_iter().chain([format!("--server={}", hub.url)]).collect()).await;
    assert_eq!(ended.code, 1);
    assert!(ended.error.contains("windlass login"), "{}", ended.error);
    let words = ["windlass", "app", "list", "--token=t", "--server=http://127.0.0.1:1", "--kubeconfig=/nonexistent"];
    let ended = run_words(words.map(str::to_owned).to_vec()).await;
    assert_eq!(ended.code, 1);
    assert!(ended.error.contains("cannot reach the hub at http://127.0.0.1:1"), "{}", ended.error);
}

#[tokio::test]
async fn cluster_add_prints_a_command_a_manifest_or_json() {
    let hub = hub(idle, &[]).await;
    let ended = run(&hub, "cluster add eu-1 --label region=eu --server-url https://eu:6443").await;
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(
        ended.data.starts_with("windlass-agent --hub hub:7443 --root-pin sha256:aa --token wj.1 "),
        "{}",
        ended.data
    );
    let cluster = hub.object(&format!("{CLUSTERS}/eu-1")).unwrap();
    assert_eq!(cluster["metadata"]["labels"], json!({"region": "eu"}));
    assert_eq!(cluster["spec"], json!({"servers": ["https://eu:6443"]}));
    let ended = run(&hub, "cluster add eu-1").await;
    assert_eq!(ended.code, 1);
    assert!(ended.error.contains("--upsert"), "{}", ended.error);
    let ended = run(&hub, "cluster add eu-1 --upsert --expires 2h -o json").await;
    let token: Value = serde_json::from_str(&ended.data).unwrap();
    assert_eq!(token["status"]["asked"], json!(7200));
    let ended = run(&hub, "cluster add eu-1 --upsert --manifest --hub other:7443 --image x/y:1").await;
    assert!(ended.data.contains("kind: Deployment") && ended.data.contains("other:7443"), "{}", ended.data);
    assert_eq!(run(&hub, "cluster rm eu-1").await.code, 2);
    assert_eq!(run(&hub, "cluster rm eu-1 --yes").await.data, "cluster 'eu-1' removed\n");
}

#[tokio::test]
async fn apply_creates_configures_and_leaves_alone() {
    let hub = hub(idle, &[]).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.yaml");
    let text = |target: &str, extra: &str| {
        format!(
            "apiVersion: argoproj.io/v1alpha1\nkind: Application\nmetadata: {{name: a}}\nspec:\n  project: default\n  \
             source: {{repoURL: r, targetRevision: {target}{extra}}}\n"
        )
    };
    let apply = format!("apply -f {}", folder.path().display());
    std::fs::write(&file, text("main", ", path: x")).unwrap();
    assert_eq!(run(&hub, &format!("{apply} --dry-run")).await.data, "application.argoproj.io/a created (dry run)\n");
    assert_eq!(run(&hub, &apply).await.data, "application.argoproj.io/a created\n");
    assert_eq!(run(&hub, &apply).await.data, "application.argoproj.io/a unchanged\n");
    let place = format!("{APPS}/a");
    let mut theirs = hub.object(&place).unwrap();
    json::set(&mut theirs, &["spec", "revisionHistoryLimit"], json!(3));
    hub.put(&place, theirs);
    std::fs::write(&file, text("v2", "")).unwrap();
    assert_eq!(run(&hub, &apply).await.data, "application.argoproj.io/a configured\n");
    let spec = hub.object(&place).unwrap()["spec"].clone();
    let source = json!({"repoURL": "r", "targetRevision": "v2"});
    assert_eq!(spec, json!({"project": "default", "source": source, "revisionHistoryLimit": 3}));
}

#[tokio::test]
async fn apply_goes_on_after_what_it_cannot_take() {
    let hub = hub(idle, &[]).await;
    let folder = tempfile::tempdir().unwrap();
    let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n---\napiVersion: argoproj.io/v1alpha1\nkind: \
                AppProject\nmetadata: {name: p}\nspec: {}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: ns}\n";
    std::fs::write(folder.path().join("all.yaml"), text).unwrap();
    let ended = run(&hub, &format!("apply -f {}", folder.path().display())).await;
    assert_eq!(ended.code, 1);
    assert_eq!(ended.data, "namespace/ns created\nappproject.argoproj.io/p created\n");
    assert!(ended.error.contains("all.yaml:1: Deployment of apps/v1 is no object of the hub"), "{}", ended.error);
}

#[tokio::test]
async fn login_writes_a_context_that_works() {
    let hub = hub(idle, &[app("a", "Synced", "Healthy")]).await;
    let folder = tempfile::tempdir().unwrap();
    let config = format!("--kubeconfig={}", folder.path().join("config").display());
    let line = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).chain([config.clone()]).collect::<Vec<_>>();
    let bad = run_words(line(&["windlass", "login", &hub.url, "--token=bad"])).await;
    assert_eq!(bad.code, 1);
    assert!(bad.error.contains("ask its administrator"), "{}", bad.error);
    let ended = run_words(line(&["windlass", "login", &hub.url, "--token", TOKEN])).await;
    assert_eq!((ended.code, ended.data.as_str()), (0, "windlass\n"), "{ended:?}");
    assert!(ended.talk.contains("(v9.9.9)"), "{}", ended.talk);
    let ended = run_words(line(&["windlass", "app", "list", "-o", "name"])).await;
    assert_eq!(ended.data, "argocd/a\n", "{ended:?}");
}

#[tokio::test]
async fn hub_status_without_a_leader_is_a_failure() {
    let hub = hub(idle, &[]).await;
    let place = "/apis/windlass.io/v1alpha1/hubstatus";
    let one =
        json!({"node": 1, "name": "n1", "kind": "voter", "up": true, "leader": true, "address": "a:1", "applied": 7});
    let status = json!({"status": {"node": 1, "leader": 1, "hubs": [one]}});
    hub.put(place, status);
    let ended = run(&hub, "hub status").await;
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(
        ended.data.ends_with(
            "NODE  NAME  KIND   UP   LEADER  APPLIED  SESSIONS  ADDRESS\n1     n1    voter  yes  yes     7                  a:1\n"
        ),
        "{}",
        ended.data
    );
    hub.put(place, json!({"status": {"node": 1, "leader": null}}));
    assert_eq!(run(&hub, "hub status").await.code, 1);
}

#[tokio::test]
async fn appset_create_changes_only_with_upsert() {
    let hub = hub(idle, &[]).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("set.yaml");
    let text = |limit: u32| {
        format!(
            "apiVersion: argoproj.io/v1alpha1\nkind: ApplicationSet\nmetadata: {{name: s}}\nspec:\n  generators: []\n  \
             template: {{spec: {{revisionHistoryLimit: {limit}}}}}\n"
        )
    };
    std::fs::write(&file, text(1)).unwrap();
    let create = format!("appset create -f {}", file.display());
    assert_eq!(run(&hub, &create).await.data, "ApplicationSet 'argocd/s' created\n");
    assert_eq!(run(&hub, &create).await.data, "ApplicationSet 'argocd/s' unchanged\n");
    std::fs::write(&file, text(2)).unwrap();
    assert_eq!(run(&hub, &create).await.code, 1);
    assert_eq!(run(&hub, &format!("{create} --upsert")).await.data, "ApplicationSet 'argocd/s' updated\n");
    let ended = run(&hub, &format!("appset generate -f {} -o json", file.display())).await;
    assert!(ended.data.contains("\"generated\""), "{ended:?}");
}

#[tokio::test]
async fn render_builds_without_a_hub() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("base");
    let over = folder.path().join("over");
    std::fs::create_dir(&base).unwrap();
    std::fs::create_dir(&over).unwrap();
    std::fs::write(base.join("kustomization.yaml"), "resources: [a.yaml]\n").unwrap();
    std::fs::write(base.join("a.yaml"), "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n").unwrap();
    std::fs::write(over.join("kustomization.yaml"), "namePrefix: x-\nresources: [../base]\n").unwrap();
    let words = ["windlass".to_owned(), "render".to_owned(), over.display().to_string()];
    let ended = run_words(words.to_vec()).await;
    assert_eq!(
        (ended.code, ended.data.as_str()),
        (0, "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: x-a\n"),
        "{ended:?}"
    );
    let ended = run_words(vec!["windlass".to_owned(), "render".to_owned(), folder.path().display().to_string()]).await;
    assert_eq!(ended.code, 1);
}
