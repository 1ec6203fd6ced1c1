//! A whole hub on a recorded disk: power cuts while it takes writes over its API, and a disk that fills up.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use kube::{Client, Config, config::KubeConfigOptions, config::Kubeconfig};
use serde_json::{Value, json};
use windlass_chaos::shim::{Disk as Shim, Event, Faults, Full, Marker, read_trace};
use windlass_hub::{config::Flags, node::Node};
use windlass_protocol::resource::Kind;
use windlass_tests::{Process, START_DEADLINE, Workdir, free_port, power::Random, scenario, wait_until};

use super::{point, wish};
use windlass_tests::power::{Disk, Rest};

/// Cuts of a run without wishes: each starts a whole hub.
const CUTS: u64 = 20;

#[test]
fn a_hub_keeps_what_its_api_acknowledged() -> Result<()> {
    scenario(async {
        let dir = Workdir::new("power-hub")?;
        let (data, trace) = (dir.join("data"), dir.join("trace"));
        let disk = Shim::new(&data, &dir.join("control"))?.recording(&trace);
        let mut hub = Hub::start(&dir, &disk).await?;
        let mut marks = Marker::open(&trace)?;
        marks.mark("created")?;
        for number in 0..40 {
            hub.write(number).await?;
            marks.mark(&format!("api {number}"))?;
        }
        let recorded = read_trace(&trace)?;
        full_disk(&mut hub, &disk).await?;
        hub.process.kill()?;
        cut(&dir, &data.canonicalize()?, &recorded).await
    })
}

/// A full disk is an error for who writes, and no panic; with space and a restart all goes on.
async fn full_disk(hub: &mut Hub, disk: &Shim) -> Result<()> {
    disk.set(&Faults { full: Full::All, ..Faults::default() })?;
    let refused = hub.write(900).await.err().context("written to a full disk")?;
    println!("full disk: {refused:#}");
    let log = hub.process.log()?;
    ensure!(log.contains("No space left on device") || log.contains("os error 28"), "the log does not say why: {log}");
    ensure!(!log.contains("panicked"), "{log}");
    disk.set(&Faults::default())?;
    hub.restart().await?;
    hub.write(901).await?;
    ensure!(hub.names().await?.len() >= 41, "something is missing after the restart");
    Ok(())
}

async fn cut(dir: &Workdir, root: &Path, events: &[Event]) -> Result<()> {
    let mut random = Random::new(wish("WINDLASS_POWER_SEED").unwrap_or(1));
    let created = events.iter().position(|event| *event == Event::Mark { text: "created".into() });
    let created = created.context("a mark")?;
    let tail = events.get(created..).unwrap_or_default();
    let cuts = wish("WINDLASS_POWER_HUB_CUTS").unwrap_or(CUTS);
    let mut points: Vec<usize> = (0..cuts).map(|_| created + point(tail, &mut random)).collect();
    points.sort_unstable();
    let mut disk = Disk::new(root);
    let mut at = 0;
    let mut acknowledged = 0;
    for point in points {
        for event in events.get(at..point).unwrap_or_default() {
            disk.advance(event)?;
            acknowledged += usize::from(matches!(event, Event::Mark { text } if text.starts_with("api ")));
        }
        at = point;
        let rests = [Rest::Gone, Rest::There, Rest::SomeWrites, Rest::SomeSectors, Rest::Torn];
        let rest = rests.get(random.below(rests.len())).copied().unwrap_or(Rest::Gone);
        let image = dir.join("image");
        disk.after_power_cut(rest, &mut random, &image)?;
        check(dir, &image, acknowledged).await.with_context(|| format!("cut after event {point}, rest {rest:?}"))?;
        std::fs::remove_dir_all(&image)?;
    }
    println!("power of a hub: {cuts} cuts of {} events held", events.len());
    Ok(())
}

async fn check(dir: &Workdir, image: &Path, acknowledged: usize) -> Result<()> {
    let config = config(dir, image, "127.0.0.1:0")?;
    let flags = Flags { config: Some(config), ..Flags::default() };
    let node = Node::start(&windlass_hub::config::Config::load(&flags)?).await?;
    let state = node.replica.clone();
    let leads =
        wait_until(START_DEADLINE, "the lead", async || Ok(state.raft().read_index().await.is_ok().then_some(())));
    leads.await?;
    let found =
        state.state().objects(Kind::ConfigMap, None).filter(|(key, _)| key.name.name.starts_with("cm-")).count();
    node.stop().await;
    ensure!(found >= acknowledged, "{found} of {acknowledged} acknowledged objects are there");
    ensure!(found <= acknowledged + 1, "{found} objects, {acknowledged} were acknowledged");
    Ok(())
}

fn config(dir: &Workdir, data: &Path, address: &str) -> Result<PathBuf> {
    let key = dir.join("operator.key");
    let text = format!(
        "data = {data:?}\noperator_key_file = {key:?}\nlisten_agents = {address:?}\nlisten_api = {address:?}\n\
         listen_peers = \"127.0.0.1:0\"\n",
    );
    dir.write(format!("{}.toml", data.file_name().context("a name")?.display()), text)
}

struct Hub {
    process: Process,
    client: Client,
}

impl Hub {
    async fn start(dir: &Workdir, disk: &Shim) -> Result<Self> {
        let address = format!("127.0.0.1:{}", free_port()?);
        let data = dir.join("data");
        let config = config(dir, &data, &address)?;
        let program = |verb: &str| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_windlass-power-child"));
            command.args(["hub", verb, "--config"]).arg(&config).envs(disk.environment());
            command
        };
        let made = program("init").output()?;
        ensure!(made.status.success(), "init: {}", String::from_utf8_lossy(&made.stderr));
        let process = Process::start("windlass-hub", dir.path(), program("serve"))?;
        let read = Kubeconfig::read_from(data.join("admin.kubeconfig"))?;
        let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?;
        let mut hub = Self { process, client: Client::try_from(config)? };
        hub.ready().await?;
        Ok(hub)
    }

    async fn restart(&mut self) -> Result<()> {
        self.process.restart()?;
        self.ready().await
    }

    async fn ready(&mut self) -> Result<()> {
        wait_until(START_DEADLINE, "the hub", async || {
            self.process.ensure_running()?;
            self.client.request_text(http::Request::get("/readyz").body(Vec::new())?).await?;
            Ok(Some(()))
        })
        .await
    }

    async fn write(&self, number: usize) -> Result<()> {
        let body = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": format!("cm-{number}"), "namespace": "argocd"},
            "data": {"filler": "x".repeat(number * 500)},
        });
        let request = http::Request::post("/api/v1/namespaces/argocd/configmaps");
        let request = request.header("Content-Type", "application/json").body(serde_json::to_vec(&body)?)?;
        self.client.request::<Value>(request).await?;
        Ok(())
    }

    async fn names(&self) -> Result<Vec<Value>> {
        let request = http::Request::get("/api/v1/namespaces/argocd/configmaps").body(Vec::new())?;
        let list: Value = self.client.request(request).await?;
        Ok(list.get("items").and_then(Value::as_array).cloned().unwrap_or_default())
    }
}
