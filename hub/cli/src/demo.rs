//! `windlass demo`: a whole fleet on this machine. Three hubs, six agents with embedded clusters, and a Git repository, all
//! real but for the clusters: the same code, ports and protocol as in production, on free loopback ports. The hubs are
//! processes of their own; everything else is this process.
//!
//! It deploys an ApplicationSet to every cluster, commits a change, kills the leading hub while the change travels, and shows
//! it arrive all the same; then it stays up, so that one can look around with `windlass` and `kubectl`.

mod fleet;
mod hubs;
mod repository;
mod screen;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::Args;

pub(crate) use self::hubs::{DemoHubArgs, serve};

use self::{fleet::Fleet, repository::Repository, screen::Screen};

/// The whole demonstration must be done within this time with `--once`.
const DEADLINE: Duration = Duration::from_secs(180);
/// Between two looks at the Applications.
const LOOK: Duration = Duration::from_millis(100);

/// Flags of `windlass demo`.
#[derive(Args, Clone, Debug)]
pub(crate) struct DemoArgs {
    /// Exit 0 as soon as the change has arrived everywhere, instead of staying up.
    #[arg(long)]
    once: bool,
    /// Number of clusters.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=200))]
    clusters: u16,
    /// Keep everything in this directory, which must be empty, instead of a temporary one.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// Runs the demonstration.
///
/// # Errors
/// What could not be started, or what did not become Healthy in time.
pub(crate) async fn run(args: &DemoArgs) -> anyhow::Result<()> {
    let (folder, _temporary) = folder(args.data.as_deref())?;
    fleet::log_to(&folder.join("demo.log"))?;
    let mut screen = Screen::new();
    screen.say(&format!("logs and data are in {}", folder.display()));
    let repository = Repository::create(&folder.join("repository"))?;
    screen.say("a Git repository with one application in three environments");
    let mut fleet = Fleet::start(&folder, repository.url()).await?;
    screen.say(&format!("three hubs in one Raft group: {}", fleet.hubs.addresses().join(", ")));
    let stopped = tokio::select! {
        result = story(args, &repository, &mut fleet, &mut screen) => result.map(|()| false),
        result = tokio::signal::ctrl_c() => result.context("cannot wait for Ctrl-C").map(|()| true),
    };
    fleet.stop().await;
    if stopped? {
        screen.say("stopped");
    }
    Ok(())
}

async fn story(args: &DemoArgs, repository: &Repository, fleet: &mut Fleet, screen: &mut Screen) -> anyhow::Result<()> {
    let began = Instant::now();
    fleet.join(args.clusters).await?;
    screen.say(&format!("{} agents have joined, each with an embedded cluster", args.clusters));
    fleet.deploy().await?;
    let first = repository.head()?;
    screen.say("an ApplicationSet deploys the application to every cluster");
    follow(fleet, screen, &first, usize::from(args.clusters), began).await?;

    let committed = Instant::now();
    let second = repository.change()?;
    screen.say(&format!("committed a change: {}", repository::short(&second)));
    let killed = fleet.hubs.kill_leader().await?;
    screen.say(&format!("killed hub {killed}, the leader, while the commit is on its way"));
    follow(fleet, screen, &second, usize::from(args.clusters), began).await?;
    let seconds = committed.elapsed().as_secs_f64();
    if let Some(leader) = fleet.hubs.leader().await {
        screen.say(&format!("hub {leader} leads now"));
    }
    screen.say(&format!("the commit is Synced and Healthy on all {} clusters after {seconds:.1} s", args.clusters));
    fleet.hubs.restart(killed).await?;
    screen.say(&format!("hub {killed} is back and has caught up"));
    if args.once {
        return Ok(());
    }
    explain(fleet, repository, screen)?;
    std::future::pending().await
}

/// Shows the fleet until every cluster runs this commit.
async fn follow(
    fleet: &Fleet,
    screen: &mut Screen,
    commit: &str,
    clusters: usize,
    began: Instant,
) -> anyhow::Result<()> {
    loop {
        let rows = fleet.look().await?;
        screen.show(&rows);
        let there = rows.iter().filter(|row| row.runs(commit)).count();
        if there == clusters {
            return Ok(());
        }
        if began.elapsed() > DEADLINE {
            let seconds = DEADLINE.as_secs();
            bail!("{there} of {clusters} clusters are Synced and Healthy at {commit} after {seconds} s; see the log");
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn explain(fleet: &Fleet, repository: &Repository, screen: &mut Screen) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let (program, kubeconfig) = (program.display(), fleet.hubs.kubeconfig().display());
    screen.say("look around in another terminal:");
    screen.command(&format!("export KUBECONFIG={kubeconfig}"));
    screen.command(&format!("{program} hub members"));
    screen.command(&format!("{program} app list"));
    screen.command(&format!("{program} app get shop-cluster-1"));
    screen.command("kubectl get clusters.windlass.io,applications.argoproj.io -A");
    let folder = repository.folder().display();
    screen.command(&format!("cd {folder} && sed -i s/blue/green/ base/deployment.yaml && git commit -qam green"));
    screen.say("Ctrl-C ends it");
    Ok(())
}

/// Where everything goes; a temporary directory is removed at the end.
fn folder(wanted: Option<&Path>) -> anyhow::Result<(PathBuf, Option<tempfile::TempDir>)> {
    let Some(wanted) = wanted else {
        let temporary = tempfile::Builder::new().prefix("windlass-demo-").tempdir()?;
        return Ok((temporary.path().to_owned(), Some(temporary)));
    };
    std::fs::create_dir_all(wanted).with_context(|| format!("cannot create {}", wanted.display()))?;
    let mut entries = std::fs::read_dir(wanted).with_context(|| format!("cannot read {}", wanted.display()))?;
    if entries.next().is_some() {
        bail!("{} is not empty: name an empty directory with --data", wanted.display());
    }
    Ok((wanted.canonicalize()?, None))
}
