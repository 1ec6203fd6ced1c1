//! The three hubs of the demonstration: processes of their own, so that one can be killed as a power failure would.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::File,
    io::Read as _,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Parser as _};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::Value;
use tokio::process::{Child, Command};
use windlass_hub::{
    command::{Cli, run},
    config::{Config as HubConfig, Flags},
    init::{init, kubeconfig},
};

/// Hubs of the group.
const COUNT: u64 = 3;
/// A hub serves, and the group is complete, within this time.
const START_TIME_MAX: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// Arguments of the hidden command that is one hub of the demonstration.
#[derive(Args, Clone, Debug)]
pub(crate) struct DemoHubArgs {
    /// Those of `windlass-hub`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Runs one hub until it is told to stop, or until the demonstration is gone.
pub(crate) fn serve(args: &DemoHubArgs) -> ExitCode {
    let arguments = std::iter::once(OsString::from("windlass-hub")).chain(args.arguments.iter().cloned());
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    std::thread::spawn(|| {
        // The other end closes with the process that holds it, however it ends.
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    run(cli)
}

struct Hub {
    arguments: Vec<OsString>,
    address: SocketAddr,
    client: Client,
    log: PathBuf,
    process: Option<Child>,
}

/// The group.
pub(super) struct Hubs {
    hubs: BTreeMap<u64, Hub>,
    pin: String,
    kubeconfig: PathBuf,
}

impl std::fmt::Debug for Hubs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hubs").field("nodes", &self.hubs.keys()).finish_non_exhaustive()
    }
}

impl Hubs {
    /// Makes a group: one hub, and two that join it.
    pub(super) async fn start(folder: &Path) -> anyhow::Result<Self> {
        let config_file = folder.join("hub.toml");
        // The repository is on this machine: asking it every second costs nothing.
        std::fs::write(&config_file, "[git]\npoll_seconds = 1\njitter_seconds = 0\n")?;
        let key = folder.join("operator.key");
        let first = flags(folder, 1, &config_file, &key)?;
        let made = init(&HubConfig::load(&first)?).await?;
        let roots = std::fs::read_to_string(folder.join("hub-1/trust/root.pem"))?;
        let mut hubs = Self { hubs: BTreeMap::new(), pin: made.pin.to_string(), kubeconfig: made.kubeconfig };
        let mut peer = String::new();
        for node in 1..=COUNT {
            let flags = if node == 1 { first.clone() } else { flags(folder, node, &config_file, &key)? };
            let mut arguments = arguments(&flags);
            if node == 1 {
                peer = flags.advertise_peers.clone().unwrap_or_default();
            } else {
                arguments.extend([
                    "--join".into(),
                    OsString::from(&peer),
                    "--token".into(),
                    hubs.token().await?.into(),
                ]);
            }
            let address = flags.listen_api.context("a hub without an address")?;
            let text = kubeconfig(&format!("https://{address}"), &roots, made.admin_token.expose());
            let parsed = Kubeconfig::from_yaml(&text)?;
            let client =
                Client::try_from(Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default()).await?)?;
            let log = folder.join(format!("hub-{node}.log"));
            hubs.hubs.insert(node, Hub { arguments, address, client, log, process: None });
            hubs.spawn(node)?;
            hubs.wait_for(usize::try_from(node)?).await?;
        }
        Ok(hubs)
    }

    fn spawn(&mut self, node: u64) -> anyhow::Result<()> {
        let hub = self.hubs.get_mut(&node).with_context(|| format!("there is no hub {node}"))?;
        let log = File::options().create(true).append(true).open(&hub.log)?;
        let process = Command::new(std::env::current_exe().context("cannot find this program")?)
            .arg("demo-hub")
            .arg("--")
            .args(&hub.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start hub {node}"))?;
        hub.process = Some(process);
        Ok(())
    }

    /// Waits until so many hubs vote and one leads.
    async fn wait_for(&mut self, voters: usize) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_TIME_MAX;
        loop {
            if self.status().await.is_ok_and(|status| voters_of(&status) == voters && leader_of(&status).is_some()) {
                return Ok(());
            }
            for (node, hub) in &mut self.hubs {
                if let Some(process) = &mut hub.process
                    && let Some(status) = process.try_wait()?
                {
                    bail!("hub {node} ended ({status}): see {}", hub.log.display());
                }
            }
            ensure!(Instant::now() < deadline, "the group of {voters} hubs is not complete: see the logs of the hubs");
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn token(&self) -> anyhow::Result<String> {
        let answer = self.request("POST", "/apis/windlass.io/v1alpha1/hubtokens").await?;
        let token = answer.pointer("/status/token").and_then(Value::as_str).context("the hub gave no token")?;
        Ok(token.to_owned())
    }

    async fn status(&self) -> anyhow::Result<Value> {
        self.request("GET", "/apis/windlass.io/v1alpha1/hubstatus").await
    }

    /// Asks any hub, with an empty body.
    pub(super) async fn request(&self, method: &str, path: &str) -> anyhow::Result<Value> {
        let mut failure = anyhow::anyhow!("no hub runs");
        for client in self.clients() {
            let body = if method == "GET" { Vec::new() } else { b"{}".to_vec() };
            let request = http::Request::builder()
                .method(method)
                .uri(path)
                .header("content-type", "application/json")
                .body(body)?;
            match client.request(request).await {
                Ok(answer) => return Ok(answer),
                Err(error) => failure = error.into(),
            }
        }
        Err(failure)
    }

    /// Kills the leader, as a power failure would; says which that was.
    pub(super) async fn kill_leader(&mut self) -> anyhow::Result<u64> {
        let leader = leader_of(&self.status().await?).context("no hub leads")?;
        let hub = self.hubs.get_mut(&leader).with_context(|| format!("there is no hub {leader}"))?;
        if let Some(mut process) = hub.process.take() {
            process.kill().await.with_context(|| format!("cannot kill hub {leader}"))?;
        }
        Ok(leader)
    }

    /// The leader of those that run.
    pub(super) async fn leader(&self) -> Option<u64> {
        leader_of(&self.status().await.ok()?)
    }

    /// Starts a killed hub again, and waits until it follows.
    pub(super) async fn restart(&mut self, node: u64) -> anyhow::Result<()> {
        self.spawn(node)?;
        let deadline = Instant::now() + START_TIME_MAX;
        loop {
            let status = self.status().await.unwrap_or_default();
            let hubs = status.pointer("/status/hubs").and_then(Value::as_array).cloned().unwrap_or_default();
            let applied = |node: u64| {
                let hub = hubs.iter().find(|hub| hub.get("node").and_then(Value::as_u64) == Some(node))?;
                hub.get("applied").and_then(Value::as_u64)
            };
            let newest = leader_of(&status).and_then(applied);
            if newest.is_some() && applied(node) >= newest {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "hub {node} did not come back");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Clients of the hubs that run.
    pub(super) fn clients(&self) -> impl Iterator<Item = &Client> {
        self.hubs.values().filter(|hub| hub.process.is_some()).map(|hub| &hub.client)
    }

    /// Where agents and users find the hubs.
    pub(super) fn addresses(&self) -> Vec<String> {
        self.hubs.values().map(|hub| hub.address.to_string()).collect()
    }

    /// What agents check before they trust.
    pub(super) fn pin(&self) -> &str {
        &self.pin
    }

    /// For users; it names the first hub.
    pub(super) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Ends all.
    pub(super) async fn stop(self) {
        for mut process in self.hubs.into_values().filter_map(|hub| hub.process) {
            // An error says that it has ended already.
            let _ = process.kill().await;
        }
    }
}

fn voters_of(status: &Value) -> usize {
    status.pointer("/status/voters").and_then(Value::as_array).map_or(0, Vec::len)
}

fn leader_of(status: &Value) -> Option<u64> {
    status.pointer("/status/leader").and_then(Value::as_u64)
}

fn flags(folder: &Path, node: u64, config: &Path, key: &Path) -> anyhow::Result<Flags> {
    let (api, peers) = free_addresses()?;
    Ok(Flags {
        config: Some(config.to_owned()),
        data: Some(folder.join(format!("hub-{node}"))),
        listen_agents: Some(api),
        listen_api: Some(api),
        listen_peers: Some(peers),
        advertise: vec![api.to_string()],
        advertise_peers: Some(peers.to_string()),
        name: Some(format!("hub-{node}")),
        operator_key_file: Some(key.to_owned()),
        ..Flags::default()
    })
}

/// An address that is free for TCP and UDP, and another one for UDP.
fn free_addresses() -> anyhow::Result<(SocketAddr, SocketAddr)> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let peers = UdpSocket::bind(any)?;
    for _ in 0..16 {
        let tcp = TcpListener::bind(any)?;
        let address = tcp.local_addr()?;
        if UdpSocket::bind(address).is_ok() {
            return Ok((address, peers.local_addr()?));
        }
    }
    bail!("no free ports on the loopback interface")
}

fn arguments(flags: &Flags) -> Vec<OsString> {
    let mut arguments = vec![OsString::from("serve")];
    let mut add = |name: &str, value: Option<OsString>| {
        if let Some(value) = value {
            arguments.extend([name.into(), value]);
        }
    };
    let address = |address: Option<SocketAddr>| address.map(|address| address.to_string().into());
    add("--config", flags.config.clone().map(Into::into));
    add("--data", flags.data.clone().map(Into::into));
    add("--listen-agents", address(flags.listen_agents));
    add("--listen-api", address(flags.listen_api));
    add("--listen-peers", address(flags.listen_peers));
    add("--advertise", flags.advertise.first().map(Into::into));
    add("--advertise-peers", flags.advertise_peers.clone().map(Into::into));
    add("--name", flags.name.clone().map(Into::into));
    add("--operator-key-file", flags.operator_key_file.clone().map(Into::into));
    arguments
}
