//! The hub's process, seen by an administrator: kubectl and the API.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use kube::{Client, Config, config::KubeConfigOptions, config::Kubeconfig};
use ring::hmac;
use serde_json::{Value, json};
use tokio::time::timeout;
use windlass_tests::{Binaries, Kubectl, Process, START_DEADLINE, WAIT_DEADLINE, Workdir, free_port, wait_until};

use super::{Look, same};

const WEBHOOK_SECRET: &str = "webhook secret of the tests";

/// A hub of one node that polls Git every second.
pub(crate) struct Hub {
    pub(crate) process: Process,
    pub(crate) look: Look,
    pub(crate) kubectl: Kubectl,
    client: Client,
    kubeconfig: PathBuf,
    _dir: Workdir,
}

/// What an agent needs to join.
pub(crate) struct Join {
    pub(crate) token: String,
    pub(crate) pin: String,
    pub(crate) hubs: Vec<String>,
}

impl Hub {
    /// Initialises and serves.
    pub(crate) async fn start() -> Result<Self> {
        let program = Binaries::locate()?.path("windlass-hub")?;
        let dir = Workdir::new("hub")?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let data = dir.join("data");
        let secret = dir.write("webhook.secret", WEBHOOK_SECRET)?;
        let config = format!(
            "data = {data:?}\nlisten_agents = {address:?}\nlisten_api = {address:?}\nadvertise = [{address:?}]\n\
             listen_peers = \"127.0.0.1:0\"\nwebhook_secret_file = {secret:?}\n[git]\npoll_seconds = 1\njitter_seconds = 0\n",
        );
        let config = dir.write("hub.toml", config)?;
        let init = Command::new(&program).args(["init", "--config"]).arg(&config).output().context("run the hub")?;
        ensure!(init.status.success(), "windlass-hub init: {}", String::from_utf8_lossy(&init.stderr));

        let mut serve = Command::new(&program);
        serve
            .args(["serve", "--config"])
            .arg(&config)
            .env("RUST_LOG", "warn,windlass=debug,windlass_hub::api::entry=info");
        let process = Process::start("windlass-hub", dir.path(), serve)?;
        let kubeconfig = data.join("admin.kubeconfig");
        let read = Kubeconfig::read_from(&kubeconfig).context("read the hub's kubeconfig")?;
        let options = KubeConfigOptions::default();
        let client = Client::try_from(Config::from_custom_kubeconfig(read, &options).await?)?;
        let kubectl = Kubectl::new("the hub", &kubeconfig, &dir.join("kubectl-cache"))?;
        let mut hub = Self { process, look: Look::new(client.clone()), kubectl, client, kubeconfig, _dir: dir };
        hub.wait_until_ready().await?;
        Ok(hub)
    }

    /// Starts it again after it was killed.
    pub(crate) async fn restart(&mut self) -> Result<()> {
        self.process.restart()?;
        self.wait_until_ready().await
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let client = self.client.clone();
        wait_until(START_DEADLINE, "the hub", async || {
            self.process.ensure_running()?;
            let request = http::Request::get("/readyz").body(Vec::new())?;
            client.request_text(request).await?;
            Ok(Some(()))
        })
        .await
    }

    /// `kubectl apply` of one object.
    pub(crate) async fn apply(&self, object: &Value) -> Result<()> {
        self.kubectl.apply(&object.to_string()).await.map(drop)
    }

    /// A merge patch of an Application by kubectl.
    pub(crate) async fn patch(&self, application: &str, patch: &Value) -> Result<()> {
        let patch = patch.to_string();
        let arguments = ["patch", "applications.argoproj.io", application, "--type=merge", "-p", &patch];
        self.kubectl.run(&arguments).await.map(drop)
    }

    /// Runs `windlass` as the administrator; gives its exit code and what it printed.
    pub(crate) async fn windlass(&self, arguments: &[&str]) -> Result<(i32, String)> {
        let mut command = tokio::process::Command::new(Binaries::locate()?.path("windlass")?);
        command.args(arguments).env("WINDLASS_KUBECONFIG", &self.kubeconfig).stdin(Stdio::null()).kill_on_drop(true);
        let what = format!("windlass {}", arguments.join(" "));
        let output = timeout(WAIT_DEADLINE, command.output()).await.with_context(|| format!("{what} hangs"))??;
        let code = output.status.code().with_context(|| format!("{what} was killed"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        let printed = String::from_utf8(output.stdout).context("not UTF-8")?;
        if code != 0 {
            eprintln!("{what} ended with {code}: {}", said.trim());
        }
        Ok((code, printed))
    }

    /// Registers a cluster and asks for a token.
    pub(crate) async fn add_cluster(&self, name: &str, server: &str) -> Result<Join> {
        let labels = json!({"env": "test", "site": name});
        self.apply(&json!({
            "apiVersion": "windlass.io/v1alpha1", "kind": "Cluster", "metadata": {"name": name, "labels": labels},
            "spec": {"servers": [server]},
        }))
        .await?;
        let path = format!("/apis/windlass.io/v1alpha1/clusters/{name}/token");
        let request = http::Request::post(path).header("Content-Type", "application/json");
        let answer: Value = self.client.request(request.body(b"{}".to_vec())?).await?;
        let text = |pointer: &str| answer.pointer(pointer).and_then(Value::as_str).map(str::to_owned).context("answer");
        let hubs = answer.pointer("/status/hubs").and_then(Value::as_array).context("hubs of the answer")?;
        Ok(Join {
            token: text("/status/token")?,
            pin: text("/status/rootPin")?,
            hubs: hubs.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        })
    }

    /// Waits until the agent of a cluster is connected.
    pub(crate) async fn connected(&self, cluster: &str) -> Result<()> {
        self.look.until("clusters", "", cluster, |cluster| same(cluster, "/status/phase", "Connected")).await.map(drop)
    }

    /// Sends a GitHub push event for a repository, signed.
    pub(crate) async fn push_event(&self, repository: &str, commit: &str) -> Result<()> {
        let event = json!({"ref": "refs/heads/main", "after": commit, "repository": {"clone_url": repository}});
        let body = event.to_string().into_bytes();
        let key = hmac::Key::new(hmac::HMAC_SHA256, WEBHOOK_SECRET.as_bytes());
        let signature: String = hmac::sign(&key, &body).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let request = http::Request::post("/api/webhook")
            .header("Content-Type", "application/json")
            .header("X-GitHub-Event", "push")
            .header("X-Hub-Signature-256", format!("sha256={signature}"));
        self.client.request_text(request.body(body)?).await.map(drop).context("the webhook is refused")
    }

    /// Waits until an Application passes a check; says where it stood when it does not.
    pub(crate) async fn until(&self, name: &str, check: impl Fn(&Value) -> Result<()>) -> Result<Value> {
        wait_until(WAIT_DEADLINE, format!("Application {name}"), async || {
            let application = self.look.get("applications", "argocd", name).await?;
            check(&application).with_context(|| describe(&application))?;
            Ok(Some(application))
        })
        .await
    }

    /// Waits until an Application is Synced to a revision, Healthy, and its operation has ended well.
    pub(crate) async fn settled(&self, name: &str, revision: &str) -> Result<Value> {
        self.until(name, |application| {
            same(application, "/status/sync/revision", revision)?;
            same(application, "/status/sync/status", "Synced")?;
            same(application, "/status/health/status", "Healthy")?;
            same(application, "/status/operationState/phase", "Succeeded")
        })
        .await
    }
}

/// `syncPolicy` of an Application that syncs by itself and makes its namespace.
pub(crate) fn automated(prune: bool, self_heal: bool) -> Value {
    json!({"automated": {"prune": prune, "selfHeal": self_heal}, "syncOptions": ["CreateNamespace=true"]})
}

/// Where an Application stands, for errors.
pub(crate) fn describe(application: &Value) -> String {
    let status = |pointer: &str| application.pointer(pointer).cloned().unwrap_or_default();
    format!(
        "sync {} to {}, health {}, operation {} {}, resources {}, conditions {}",
        status("/status/sync/status"),
        status("/status/sync/revision"),
        status("/status/health"),
        status("/status/operationState/phase"),
        status("/status/operationState/message"),
        status("/status/resources"),
        status("/status/conditions"),
    )
}
