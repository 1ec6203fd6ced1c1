//! The Git repository of the demonstration: one application, a base and three overlays, made with the `git` program.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

/// A repository with a working tree.
#[derive(Debug)]
pub(super) struct Repository {
    folder: PathBuf,
}

impl Repository {
    /// Makes the repository with its first commit.
    pub(super) fn create(folder: &Path) -> anyhow::Result<Self> {
        let repository = Self { folder: folder.to_owned() };
        for (path, content) in files() {
            let path = folder.join(path);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        }
        repository.git(&["init", "--quiet", "--initial-branch=main"])?;
        repository.git(&["config", "user.name", "Windlass demo"])?;
        repository.git(&["config", "user.email", "demo@windlass.invalid"])?;
        repository.git(&["add", "."])?;
        repository.git(&["commit", "--quiet", "--message", "a shop, painted white"])?;
        Ok(repository)
    }

    /// Commits a change of every environment; gives the commit.
    pub(super) fn change(&self) -> anyhow::Result<String> {
        let path = self.folder.join("base/deployment.yaml");
        let old = fs::read_to_string(&path)?;
        fs::write(&path, old.replace("white", "blue"))?;
        self.git(&["commit", "--quiet", "--all", "--message", "paint the shop blue"])?;
        self.head()
    }

    /// The newest commit.
    pub(super) fn head(&self) -> anyhow::Result<String> {
        Ok(self.git(&["rev-parse", "HEAD"])?.trim().to_owned())
    }

    /// As `spec.source.repoURL`.
    pub(super) fn url(&self) -> String {
        format!("file://{}", self.folder.display())
    }

    /// The working tree.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    fn git(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = Command::new("git")
            .args(arguments)
            .current_dir(&self.folder)
            // The user's own settings (hooks, signing) have no business here.
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_SYSTEM", "/dev/null")
            .output()
            .context("cannot run git: the demonstration makes a repository with it")?;
        if !output.status.success() {
            bail!("git {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// The first digits of a commit.
pub(super) fn short(commit: &str) -> &str {
    commit.get(..7).unwrap_or(commit)
}

fn files() -> Vec<(String, String)> {
    let mut files = vec![
        ("base/deployment.yaml".to_owned(), DEPLOYMENT.to_owned()),
        ("base/service.yaml".to_owned(), SERVICE.to_owned()),
        ("base/kustomization.yaml".to_owned(), BASE.to_owned()),
    ];
    for (environment, replicas) in [("development", 1), ("staging", 2), ("production", 3)] {
        let overlay = OVERLAY.replace("ENVIRONMENT", environment).replace("REPLICAS", &replicas.to_string());
        files.push((format!("overlays/{environment}/kustomization.yaml"), overlay));
    }
    files
}

const DEPLOYMENT: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: shop
spec:
  selector:
    matchLabels:
      app: shop
  template:
    metadata:
      labels:
        app: shop
    spec:
      containers:
        - name: shop
          image: registry.example.com/shop:1.0
          env:
            - name: COLOUR
              value: white
          ports:
            - containerPort: 8080
";

const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata:
  name: shop
spec:
  selector:
    app: shop
  ports:
    - port: 80
      targetPort: 8080
";

const BASE: &str = "\
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
  - deployment.yaml
  - service.yaml
configMapGenerator:
  - name: shop-settings
    literals:
      - GREETING=welcome
";

const OVERLAY: &str = "\
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: shop
resources:
  - ../../base
labels:
  - pairs:
      environment: ENVIRONMENT
replicas:
  - name: shop
    count: REPLICAS
";
