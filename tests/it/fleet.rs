//! A whole installation of real parts: one hub, a Git host with a password, and control planes with an agent each.
//!
//! Nothing here knows what a test checks; it only starts, stops and looks.

mod hub;
mod look;
mod site;

use anyhow::{Context as _, Result, bail};
use futures::future::{LocalBoxFuture, join_all, try_join_all};
use serde_json::{Value, json};
use windlass_tests::{Access, ControlPlane, GitRepo, GitServer, Workdir};

pub(crate) use self::{
    hub::{Hub, Join, automated},
    look::{Look, revision, same},
    site::{AgentOptions, Site},
};

const USER: &str = "deploy";
const PASSWORD: &str = "let me:in%";

/// One hub, one Git host, and some clusters. Dropping it ends all of it.
pub(crate) struct Fleet {
    pub(crate) sites: Vec<Site>,
    pub(crate) hub: Hub,
    pub(crate) git: GitServer,
    _repositories: Workdir,
}

impl Fleet {
    /// Starts everything; each cluster has the labels `env: test` and `site: NAME`, and a connected agent.
    pub(crate) async fn start<const N: usize>(names: [&str; N]) -> Result<Self> {
        Self::start_with(names, AgentOptions::default()).await
    }

    /// As [`Self::start`], with options for the agents.
    pub(crate) async fn start_with<const N: usize>(names: [&str; N], options: AgentOptions) -> Result<Self> {
        let (planes, hub) = tokio::join!(ControlPlane::start_all(names), Hub::start());
        let (planes, hub) = (planes?, hub?);
        let repositories = Workdir::new("repositories")?;
        let access = Access::Basic { user: USER.to_owned(), password: PASSWORD.to_owned() };
        let git = GitServer::start_with(repositories.path(), access).await?;
        hub.apply(&credentials(git.url())).await?;
        let sites = planes.into_iter().map(|plane| Site::join(&hub, plane, &options));
        let sites = try_join_all(sites).await?;
        for site in &sites {
            hub.connected(site.name()).await?;
        }
        Ok(Self { sites, hub, git, _repositories: repositories })
    }

    /// An empty repository; its pushes carry the password.
    pub(crate) fn repository(&self, name: &str) -> Result<GitRepo> {
        self.git.create(name)
    }

    /// The first cluster.
    pub(crate) fn first(&self) -> Result<&Site> {
        self.sites.first().context("a fleet has a cluster")
    }

    /// An Application of a directory of a repository to a cluster, into a namespace of the same name.
    pub(crate) fn application(&self, name: &str, repository: &GitRepo, path: &str, policy: Value) -> Result<Value> {
        Ok(json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Application",
            "metadata": {"name": name, "namespace": "argocd"},
            "spec": {
                "project": "default",
                "source": {"repoURL": repository.url(), "path": path, "targetRevision": "main"},
                "destination": {"name": self.first()?.name(), "namespace": name},
                "syncPolicy": policy,
            },
        }))
    }
}

/// A part of a test with a name: several share one fleet, and each says for itself how it went.
pub(crate) async fn parts<'a>(parts: Vec<(&str, LocalBoxFuture<'a, Result<()>>)>) -> Result<()> {
    let results = join_all(parts.into_iter().map(|(name, part)| async move { (name, part.await) })).await;
    let mut failed = Vec::new();
    for (name, result) in results {
        match result {
            Ok(()) => eprintln!("part {name}: ok"),
            Err(error) => {
                eprintln!("part {name}: FAILED: {error:#}");
                failed.push(name);
            }
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("failed: {}", failed.join(", "))
}

/// Credentials for every repository of the Git host.
fn credentials(url: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {
            "name": "git-host", "namespace": "argocd", "labels": {"argocd.argoproj.io/secret-type": "repo-creds"},
        },
        "stringData": {"type": "git", "url": url, "username": USER, "password": PASSWORD},
    })
}
