//! A real Kubernetes control plane on loopback: kube-apiserver and
//! kube-controller-manager over etcd, with kwok playing one node.
//!
//! RBAC is on, service accounts get real tokens, controllers and garbage collection run.
//! What is missing: a scheduler (an admission policy puts every pod on the one node),
//! networking, and containers (kwok reports pods as running; see `plane/stages.yaml`).

mod credentials;
mod etcd;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use kube::{Client, Config, config::KubeConfigOptions, config::Kubeconfig};

use self::{
    credentials::{kubeconfig, signing_key, token},
    etcd::Etcd,
};
use crate::{Kubectl, Process, START_DEADLINE, Tools, Workdir, free_port, wait_until};

const ADMIN_KUBECONFIG: &str = "admin.kubeconfig";

/// A running control plane. Dropping it ends its processes.
pub struct ControlPlane {
    name: String,
    url: String,
    client: Client,
    // Dropped in this order, so that nobody complains about a lost server for long.
    node: Option<Process>,
    controllers: Option<Process>,
    api_server: Process,
    _etcd: Arc<Etcd>,
    dir: Workdir,
    tools: Tools,
    kubectl: Kubectl,
}

impl ControlPlane {
    /// Starts a control plane over its own etcd; `name` is a DNS label.
    pub async fn start(name: &str) -> Result<Self> {
        let etcd = Arc::new(Etcd::start().await?);
        Self::start_over(etcd, name).await
    }

    /// Starts several side by side over one etcd: cheaper than one by one. They are as
    /// separate as with an etcd each, except in time of load.
    pub async fn start_all<const N: usize>(names: [&str; N]) -> Result<[Self; N]> {
        let etcd = Arc::new(Etcd::start().await?);
        let planes = try_join_all(names.map(|name| Self::start_over(Arc::clone(&etcd), name))).await?;
        planes.try_into().ok().context("as many planes as names")
    }

    /// The name, as given at the start.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `https://127.0.0.1:PORT`; the same after an outage.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A kubeconfig of the administrator (group `system:masters`).
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join(ADMIN_KUBECONFIG)
    }

    /// A client of the administrator.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// A kubeconfig with a fresh token of a service account that exists, valid for an
    /// hour: what a pod with that account may do, RBAC included.
    pub async fn service_account_kubeconfig(&self, namespace: &str, name: &str) -> Result<PathBuf> {
        let token = self.kubectl(&["create", "token", name, "--namespace", namespace]).await?;
        let config = kubeconfig(&self.name, &self.url, &authority(&self.dir)?, token.trim());
        self.dir.write(format!("{namespace}-{name}.kubeconfig"), config.to_string())
    }

    /// Runs the real kubectl as the administrator; gives what it printed. A failure is an
    /// error with what it said.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl.run(arguments).await
    }

    /// As [`Self::kubectl`], with `input` on its standard input (for `-f -`).
    pub async fn kubectl_with_input(&self, arguments: &[&str], input: &str) -> Result<String> {
        self.kubectl.run_with_input(arguments, input).await
    }

    /// `kubectl apply -f -` of a document or several.
    pub async fn apply(&self, manifests: &str) -> Result<String> {
        self.kubectl.apply(manifests).await
    }

    /// Kills the API server: an outage. Everything else keeps running and retries.
    pub fn stop_api_server(&mut self) -> Result<()> {
        self.api_server.kill()
    }

    /// Ends the outage under the same URL, with the same certificate and data, and waits
    /// until the API server is ready.
    pub async fn start_api_server(&mut self) -> Result<()> {
        self.api_server.restart()?;
        self.wait_until_ready().await
    }

    /// The API server's process, to pause it or to measure it.
    pub fn api_server(&mut self) -> &mut Process {
        &mut self.api_server
    }

    async fn start_over(etcd: Arc<Etcd>, name: &str) -> Result<Self> {
        let tools = Tools::locate()?;
        let dir = Workdir::new(name)?;
        let token = token()?;
        dir.write("tokens.csv", format!("{token},admin,admin,system:masters\n"))?;
        dir.write("service-accounts.pem", signing_key()?)?;
        dir.write("stages.yaml", include_str!("plane/stages.yaml"))?;
        let port = free_port()?;
        let url = format!("https://127.0.0.1:{port}");
        let command = api_server_command(&tools, &dir, &etcd, name, port)?;
        let mut api_server = start_peer(name, "kube-apiserver", &dir, command)?;
        let client = connect(name, &url, &token, &dir, &mut api_server).await?;
        let kubectl = Kubectl::new(name, &dir.join(ADMIN_KUBECONFIG), &dir.join("kubectl-cache"))?;
        let mut plane = Self {
            kubectl,
            name: name.to_owned(),
            url,
            client,
            node: None,
            controllers: None,
            api_server,
            _etcd: etcd,
            dir,
            tools,
        };
        plane.wait_until_ready().await?;
        plane.start_controllers()?;
        plane.start_node().await?;
        Ok(plane)
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let client = self.client();
        let what = format!("{}: readiness of the API server", self.name);
        wait_until(START_DEADLINE, what, async || {
            self.api_server.ensure_running()?;
            let request = http::Request::get("/readyz").body(Vec::new())?;
            let answer = client.request_text(request).await?;
            ensure!(answer == "ok", "{answer}");
            Ok(Some(()))
        })
        .await
    }

    fn start_controllers(&mut self) -> Result<()> {
        let mut command = Command::new(self.tools.path("kube-controller-manager")?);
        command
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .arg("--service-account-private-key-file")
            .arg(self.dir.join("service-accounts.pem"))
            .arg("--root-ca-file")
            .arg(self.dir.join("certificates/apiserver.crt"))
            .args([
                "--leader-elect=false",
                "--secure-port=0",
                "--kube-api-qps=500",
                "--kube-api-burst=1000",
                // There is no cloud, and kwok keeps the node alive.
                "--controllers=*,-cloud-node-lifecycle-controller,-node-ipam-controller,-node-lifecycle-controller,\
                 -node-route-controller,-service-lb-controller,-taint-eviction-controller,-ttl-controller",
            ]);
        self.controllers = Some(start_peer(&self.name, "kube-controller-manager", &self.dir, command)?);
        Ok(())
    }

    /// Makes the node, starts kwok, and waits until a pod would run.
    async fn start_node(&mut self) -> Result<()> {
        let mut command = Command::new(self.tools.path("kwok")?);
        command.arg("--kubeconfig").arg(self.kubeconfig()).arg("--config").arg(self.dir.join("stages.yaml")).args([
            "--manage-all-nodes=true",
            "--node-lease-duration-seconds=0", // nobody reads leases here
        ]);
        command.env("HOME", self.dir.path()); // it would read its configuration there
        self.node = Some(start_peer(&self.name, "kwok", &self.dir, command)?);
        self.kubectl_with_input(&["create", "-f", "-"], include_str!("plane/node.yaml")).await?;

        let what = format!("{}: a node that takes pods", self.name);
        wait_until(START_DEADLINE, what, async || {
            for process in [&mut self.controllers, &mut self.node].into_iter().flatten() {
                process.ensure_running()?;
            }
            // Needs the default service account, so the controllers too, and the policy.
            let probe = ["run", "probe", "--image=probe", "--dry-run=server", "--output=jsonpath={.spec.nodeName}"];
            let node = self.kubectl(&probe).await?;
            ensure!(node == "node-0", "the pod is on node {node:?}");
            let ready = "--output=jsonpath={.status.conditions[?(@.type=='Ready')].status}";
            let ready = self.kubectl(&["get", "node", "node-0", ready]).await?;
            ensure!(ready == "True", "the node is ready: {ready:?}");
            Ok(Some(()))
        })
        .await
    }
}

impl fmt::Debug for ControlPlane {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, url, api_server, .. } = self;
        formatter
            .debug_struct("ControlPlane")
            .field("name", name)
            .field("url", url)
            .field("api_server", api_server)
            .finish_non_exhaustive()
    }
}

/// Makes the administrator's kubeconfig and client as soon as the API server has made its
/// certificate.
async fn connect(name: &str, url: &str, token: &str, dir: &Workdir, server: &mut Process) -> Result<Client> {
    let what = format!("{name}: the certificate of the API server");
    wait_until(START_DEADLINE, what, async || {
        server.ensure_running()?;
        // The key is written after the certificate, so that then both are whole.
        ensure!(dir.join("certificates/apiserver.key").is_file(), "not there");
        Ok(Some(()))
    })
    .await?;
    let config = kubeconfig(name, url, &authority(dir)?, token);
    let path = dir.write(ADMIN_KUBECONFIG, config.to_string())?;
    let config = Kubeconfig::read_from(path).context("read the kubeconfig back")?;
    let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

fn authority(dir: &Workdir) -> Result<Vec<u8>> {
    fs::read(dir.join("certificates/apiserver.crt")).context("read the certificate of the API server")
}

fn start_peer(plane: &str, program: &str, dir: &Workdir, command: Command) -> Result<Process> {
    Ok(Process::start(&format!("{plane}-{program}"), dir.path(), command)?.into_peer())
}

fn api_server_command(tools: &Tools, dir: &Workdir, etcd: &Etcd, name: &str, port: u16) -> Result<Command> {
    let file = |flag: &str, path: &Path| format!("--{flag}={}", path.display());
    let keys = dir.join("service-accounts.pem");
    let mut command = Command::new(tools.path("kube-apiserver")?);
    command.args([
        &format!("--etcd-servers={}", etcd.url()),
        &format!("--etcd-prefix=/{name}"),
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        &format!("--secure-port={port}"),
        // It signs its own certificate and keeps it there over restarts.
        &file("cert-dir", &dir.join("certificates")),
        &file("token-auth-file", &dir.join("tokens.csv")),
        "--authorization-mode=RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        &file("service-account-key-file", &keys),
        &file("service-account-signing-key-file", &keys),
        "--service-cluster-ip-range=10.0.0.0/16",
        "--endpoint-reconciler-type=none", // a loopback address is no endpoint
        "--disable-admission-plugins=TaintNodesByCondition", // the node would stay tainted
        "--allow-privileged=true",
        "--shutdown-watch-termination-grace-period=0s",
    ]);
    Ok(command)
}
