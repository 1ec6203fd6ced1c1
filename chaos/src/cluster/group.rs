//! A group of real hub processes on loopback: founded, joined, killed, paused, restarted.
//!
//! Counted from 0 here; the hub's own number is one more. Every process ends with this value; data and logs stay in the work
//! directory, which is kept with `WINDLASS_KEEP=1`.

use std::{
    ffi::OsString,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use reqwest::Method;
use serde_json::Value;

use super::{
    api::{Access, Answer, Api},
    links::Links,
    programs::Programs,
};
use crate::host::{Process, START_DEADLINE, Signal, WAIT_DEADLINE, Workdir, free_port, wait_until};

/// What hubs log: enough to tell a story, little enough for a thousand rounds.
const LOG_FILTER: &str = "warn,windlass_hub=info";

/// How to make a group.
#[derive(Clone, Debug)]
pub struct GroupOptions {
    /// The programs under test.
    pub programs: Programs,
    /// How many hubs.
    pub size: usize,
    /// Chance of the links.
    pub seed: u64,
    /// Whether the hubs reach each other directly or through proxies.
    pub network: Network,
    /// Environment of every hub, beside what this process has.
    pub environment: Vec<(String, OsString)>,
}

/// What is between the hubs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Loopback.
    Direct,
    /// A [`Links`] proxy before each.
    Proxied,
}

/// The hubs of one group.
#[derive(Debug)]
pub struct Group {
    hubs: Vec<Hub>,
    links: Option<Links>,
    access: Access,
    api: Api,
    options: GroupOptions,
    program: PathBuf,
    dir: Workdir,
}

/// One hub, running or not.
#[derive(Debug)]
struct Hub {
    config: PathBuf,
    process: Option<Process>,
    agents: SocketAddr,
    /// What only this hub has in its environment.
    environment: Vec<(String, OsString)>,
}

/// Addresses of a hub to be.
struct Place {
    api: SocketAddr,
    peers: SocketAddr,
}

impl Group {
    /// Founds a group with its first hub and joins the others one by one; all are voters then.
    ///
    /// # Errors
    /// What did not work, with the log of who is at fault.
    pub async fn start(options: GroupOptions) -> Result<Self> {
        ensure!((1..=7).contains(&options.size), "a group has one to seven hubs");
        let program = options.programs.path("windlass-hub")?;
        let dir = Workdir::new("cluster")?;
        let address = || Ok::<_, anyhow::Error>(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)));
        let places: Vec<Place> =
            (0..options.size).map(|_| Ok(Place { api: address()?, peers: address()? })).collect::<Result<_>>()?;
        let links = match options.network {
            Network::Direct => None,
            Network::Proxied => {
                let ports: Vec<u16> = places.iter().map(|place| place.peers.port()).collect();
                Some(Links::start(&ports, options.seed).await?)
            }
        };
        let mut hubs = Vec::new();
        for (number, place) in places.iter().enumerate() {
            let front = links.as_ref().and_then(|links| links.front(number)).unwrap_or(place.peers);
            let config = dir.write(format!("hub-{}.toml", number + 1), configuration(&dir, number, place, front))?;
            hubs.push(Hub { config, process: None, agents: place.api, environment: Vec::new() });
        }
        let first = hubs.first().context("a group has a first hub")?;
        run(&program, "init", &first.config)?;
        let kubeconfig = std::fs::read_to_string(data(&dir, 0).join("admin.kubeconfig")).context("the kubeconfig")?;
        let access = Access::new(&kubeconfig, places.iter().map(|place| place.api.to_string()).collect())?;
        let api = access.connect()?;
        let mut group = Self { hubs, links, access, api, options, program, dir };
        group.serve(0, &[])?;
        group.ready(0).await?;
        for number in 1..group.size() {
            group.join(number, 0).await?;
        }
        Ok(group)
    }

    /// How many hubs there are.
    #[must_use]
    pub fn size(&self) -> usize {
        self.hubs.len()
    }

    /// The hubs' API, for clients with their own connections.
    #[must_use]
    pub const fn access(&self) -> &Access {
        &self.access
    }

    /// The hubs' API.
    #[must_use]
    pub const fn api(&self) -> &Api {
        &self.api
    }

    /// The network between the hubs, when it is proxied.
    ///
    /// # Errors
    /// When it is not.
    pub fn links(&self) -> Result<&Links> {
        self.links.as_ref().context("this group has no proxies")
    }

    /// The work directory.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// The programs under test.
    #[must_use]
    pub const fn programs(&self) -> &Programs {
        &self.options.programs
    }

    /// Everything that a hub keeps.
    #[must_use]
    pub fn data(&self, hub: usize) -> PathBuf {
        data(&self.dir, hub)
    }

    /// The configuration file of a hub.
    ///
    /// # Errors
    /// When there is no such hub.
    pub fn config(&self, hub: usize) -> Result<&Path> {
        Ok(&self.hubs.get(hub).with_context(|| format!("there is no hub {}", hub + 1))?.config)
    }

    /// Where agents dial the hubs.
    #[must_use]
    pub fn agents(&self) -> Vec<String> {
        self.hubs.iter().map(|hub| hub.agents.to_string()).collect()
    }

    /// Environment of one hub from its next start on.
    ///
    /// # Errors
    /// When there is no such hub.
    pub fn set_environment(&mut self, hub: usize, environment: Vec<(String, OsString)>) -> Result<()> {
        self.hub(hub)?.environment = environment;
        Ok(())
    }

    /// Ends a hub at once, as a power cut would.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self, hub: usize) -> Result<()> {
        match self.hub(hub)?.process.as_mut() {
            Some(process) => process.kill(),
            None => Ok(()),
        }
    }

    /// Process id of a running hub.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid(&mut self, hub: usize) -> Result<u32> {
        self.process(hub)?.pid().with_context(|| format!("hub {} does not run", hub + 1))
    }

    /// Sends a signal to a running hub.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&mut self, hub: usize, signal: Signal) -> Result<()> {
        self.process(hub)?.signal(signal)
    }

    /// Asks a hub to end and waits until it has.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn terminate(&mut self, hub: usize) -> Result<()> {
        let status = self.process(hub)?.terminate().await?;
        ensure!(status.success(), "hub {} ended with {status}:\n{}", hub + 1, self.process(hub)?.tail());
        Ok(())
    }

    /// Starts a hub again on its data; kills it first if it runs.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn restart(&mut self, hub: usize) -> Result<()> {
        self.kill(hub)?;
        self.serve(hub, &[])
    }

    /// Whether a hub's process runs.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn is_running(&mut self, hub: usize) -> Result<bool> {
        match self.hub(hub)?.process.as_mut() {
            Some(process) => process.is_running(),
            None => Ok(false),
        }
    }

    /// What a hub logged since its last start.
    ///
    /// # Errors
    /// When there is no log.
    pub fn log(&mut self, hub: usize) -> Result<String> {
        self.process(hub)?.log()
    }

    /// Waits until a hub serves and knows a leader; its end is an error at once.
    ///
    /// # Errors
    /// When it ends, or takes too long.
    pub async fn ready(&mut self, hub: usize) -> Result<()> {
        let api = self.api.clone();
        let process = self.process(hub)?;
        let answered = wait_until(START_DEADLINE, format!("hub {}", hub + 1), async || {
            if !process.is_running()? {
                return Ok(Some(false));
            }
            api.ready(hub).await?;
            Ok(Some(true))
        });
        let alive = answered.await?;
        ensure!(alive, "hub {} ended:\n{}", hub + 1, self.process(hub)?.tail());
        Ok(())
    }

    /// Waits until all hubs serve and know a leader.
    ///
    /// # Errors
    /// When one ends, or takes too long.
    pub async fn all_ready(&mut self) -> Result<()> {
        for hub in 0..self.size() {
            self.ready(hub).await?;
        }
        Ok(())
    }

    /// A request that must succeed, at whichever hub takes it; only for what is safe to repeat.
    ///
    /// # Errors
    /// When no hub takes it in time.
    pub async fn must(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let mut hub = 0;
        wait_until(WAIT_DEADLINE, format!("{method} {path}"), async || {
            hub = (hub + 1) % self.size();
            match self.api.send(hub, method.clone(), path, body).await {
                Answer::Refused { reason, .. } if reason == "AlreadyExists" => Ok(Some(Value::Null)),
                answer => answer.ok().map(Some),
            }
        })
        .await
    }

    /// The leader, by the word of the hub that leads in the highest term.
    pub async fn leader(&self) -> Option<usize> {
        self.leader_and_term().await.map(|(leader, _)| leader)
    }

    /// The leader and its term.
    pub async fn leader_and_term(&self) -> Option<(usize, u64)> {
        let asked = (0..self.size()).map(|hub| async move { (hub, self.api.status(hub).await.ok()) });
        let answers = futures::future::join_all(asked).await;
        let leading = answers.into_iter().filter_map(|(hub, status)| {
            let status = status.filter(|status| status.get("role").and_then(Value::as_str) == Some("Leader"))?;
            Some((hub, status.get("term").and_then(Value::as_u64)?))
        });
        leading.max_by_key(|(_, term)| *term)
    }

    /// Waits for a leader that is not `other`.
    ///
    /// # Errors
    /// When there is none in time.
    pub async fn leader_other_than(&self, other: Option<usize>, deadline: Duration) -> Result<usize> {
        wait_until(deadline, "a leader", async || {
            let leader = self.leader().await.context("nobody leads")?;
            ensure!(Some(leader) != other, "hub {} still leads", leader + 1);
            Ok(Some(leader))
        })
        .await
    }

    /// Joins the hub `number` through `member`, and waits until it votes. Its disk must be empty.
    ///
    /// # Errors
    /// When the join is refused.
    pub async fn join(&mut self, number: usize, member: usize) -> Result<()> {
        let config = self.hub(member)?.config.clone();
        let token = run(&self.program, "token", &config)?;
        let token = token.split_whitespace().last().context("windlass-hub token printed nothing")?.to_owned();
        let address = match &self.links {
            Some(links) => links.front(member).context("a proxy for each hub")?.to_string(),
            None => self.peer_address(member)?,
        };
        self.serve(number, &["--join", &address, "--token", &token])?;
        self.ready(number).await?;
        let api = self.api.clone();
        wait_until(START_DEADLINE, format!("hub {} to vote", number + 1), async || {
            let status = api.status(number).await?;
            let node = status.get("node").and_then(Value::as_u64);
            let voters = status.get("voters").and_then(Value::as_array).context("a status without voters")?;
            let votes = voters.iter().any(|voter| voter.get("node").and_then(Value::as_u64) == node);
            ensure!(votes && node.is_some(), "node {node:?}, voters {voters:?}");
            Ok(Some(()))
        })
        .await
    }

    /// Replaces a hub that is lost for good: it is removed from the group, and a new one with an empty disk joins in its
    /// place, through another member.
    ///
    /// # Errors
    /// When the removal or the join is refused.
    pub async fn replace(&mut self, hub: usize, member: usize) -> Result<()> {
        let node = self.api.status(hub).await?.get("node").and_then(Value::as_u64).context("a status without node")?;
        self.kill(hub)?;
        self.must(Method::POST, &format!("/apis/windlass.io/v1alpha1/hubs/{node}/remove"), None).await?;
        std::fs::remove_dir_all(self.data(hub)).context("wipe the disk")?;
        self.join(hub, member).await
    }

    fn peer_address(&self, hub: usize) -> Result<String> {
        let config = self.hubs.get(hub).context("no such hub")?;
        let text = std::fs::read_to_string(&config.config).context("the configuration")?;
        let line = text.lines().find_map(|line| line.strip_prefix("listen_peers = "));
        Ok(line.context("no listen_peers")?.trim_matches('"').to_owned())
    }

    fn serve(&mut self, hub: usize, arguments: &[&str]) -> Result<()> {
        let (program, folder) = (self.program.clone(), self.dir.path().to_owned());
        let shared = self.options.environment.clone();
        let entry = self.hub(hub)?;
        let mut command = Command::new(program);
        command.args(["serve", "--config"]).arg(&entry.config).args(arguments).env("RUST_LOG", LOG_FILTER);
        command.envs(shared).envs(entry.environment.iter().cloned());
        let process = Process::start(&format!("hub-{}", hub + 1), &folder, command)?;
        let pid = process.pid();
        entry.process = Some(process);
        if let (Some(links), Some(pid)) = (&self.links, pid) {
            links.started(hub, pid);
        }
        Ok(())
    }

    fn hub(&mut self, hub: usize) -> Result<&mut Hub> {
        self.hubs.get_mut(hub).with_context(|| format!("there is no hub {}", hub + 1))
    }

    fn process(&mut self, hub: usize) -> Result<&mut Process> {
        self.hub(hub)?.process.as_mut().with_context(|| format!("hub {} was never started", hub + 1))
    }
}

fn data(dir: &Workdir, hub: usize) -> PathBuf {
    dir.join(format!("data-{}", hub + 1))
}

/// The configuration of one hub.
fn configuration(dir: &Workdir, hub: usize, place: &Place, front: SocketAddr) -> String {
    let (data, key) = (data(dir, hub), dir.join("operator.key"));
    let Place { api, peers } = place;
    format!(
        "data = {data:?}\noperator_key_file = {key:?}\n\
         listen_agents = \"{api}\"\nlisten_api = \"{api}\"\nadvertise = [\"{api}\"]\n\
         listen_peers = \"{peers}\"\nadvertise_peers = \"{front}\"\n\
         [git]\npoll_seconds = 1\njitter_seconds = 0\n"
    )
}

/// Runs the hub's program to its end; gives what it printed.
fn run(program: &Path, verb: &str, config: &Path) -> Result<String> {
    let mut command = Command::new(program);
    command.args([verb, "--config"]).arg(config).stdin(Stdio::null());
    let output = command.output().context("run the hub")?;
    ensure!(output.status.success(), "windlass-hub {verb}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
