//! Git as a list of commits, and a renderer that only reads what is there. The bundles it makes are real: index, blobs, digests.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};
use windlass_protocol::{
    codec,
    ids::Digest,
    manifest::{self, ResourceKey},
    message::{BundleIndex, BundleRef, ResourceRef},
    session::BLOB_BYTES_MAX,
};

use super::random::Random;

/// Manifests of one directory. Far below the brake's budget, so that it never holds a prune of the simulation.
const MANIFESTS_MAX: u64 = 4;

/// The one repository.
#[derive(Debug, Default)]
pub(crate) struct Git {
    /// Every commit as a whole tree.
    commits: Vec<Arc<BTreeMap<String, Directory>>>,
}

/// A directory of plain manifests.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Directory {
    pub(crate) manifests: BTreeMap<String, Value>,
    /// Does not render.
    pub(crate) broken: bool,
}

/// A rendered bundle with its content.
#[derive(Clone, Debug)]
pub(crate) struct Rendered {
    pub(crate) bundle: BundleRef,
    pub(crate) blobs: Vec<(Digest, Arc<Vec<u8>>)>,
    pub(crate) kinds: Vec<(String, String, String)>,
}

impl Git {
    pub(crate) fn new() -> Self {
        Self { commits: vec![Arc::new(BTreeMap::new())] }
    }

    /// Number of the newest commit.
    pub(crate) fn head(&self) -> usize {
        self.commits.len().saturating_sub(1)
    }

    pub(crate) fn tree(&self, commit: usize) -> Option<&Arc<BTreeMap<String, Directory>>> {
        self.commits.get(commit)
    }

    fn commit(&mut self, change: impl FnOnce(&mut BTreeMap<String, Directory>)) {
        let mut tree = self.commits.last().map(|tree| (**tree).clone()).unwrap_or_default();
        change(&mut tree);
        self.commits.push(Arc::new(tree));
    }

    /// Makes sure that a directory exists.
    pub(crate) fn ensure(&mut self, path: &str) {
        if self.commits.last().is_some_and(|tree| tree.contains_key(path)) {
            return;
        }
        let commit = self.commits.len();
        self.commit(|tree| {
            let mut directory = Directory::default();
            for name in ["a", "web"] {
                directory.manifests.insert(name.to_owned(), manifest_of(path, name, commit));
            }
            tree.insert(path.to_owned(), directory);
        });
    }

    /// Changes one directory somehow.
    pub(crate) fn change(&mut self, random: &mut Random) -> String {
        let paths: Vec<String> = self.commits.last().map(|tree| tree.keys().cloned().collect()).unwrap_or_default();
        let Some(path) = random.pick(&paths).cloned() else { return "nothing to change".to_owned() };
        let (commit, dice, name) = (self.commits.len(), random.below(10), random.below(MANIFESTS_MAX));
        let name = format!("m{name}");
        let mut what = String::new();
        self.commit(|tree| {
            let Some(directory) = tree.get_mut(&path) else { return };
            directory.broken = dice == 0;
            what = match dice {
                0 => format!("breaks {path}"),
                1..=3 if directory.manifests.len() > 2 => {
                    let name =
                        directory.manifests.keys().find(|name| name.starts_with('m')).cloned().unwrap_or_default();
                    directory.manifests.remove(&name);
                    format!("removes {name} from {path}")
                }
                1..=6 => {
                    directory.manifests.insert(name.clone(), manifest_of(&path, &name, commit));
                    format!("sets {name} in {path}")
                }
                _ => {
                    let web = manifest_of(&path, "web", commit);
                    directory.manifests.insert("web".to_owned(), web);
                    format!("sets web in {path}")
                }
            };
        });
        what
    }

    /// Changes every manifest and mends every directory.
    pub(crate) fn renew(&mut self) {
        let commit = self.commits.len();
        self.commit(|tree| {
            for (path, directory) in tree {
                directory.broken = false;
                for (name, manifest) in &mut directory.manifests {
                    *manifest = manifest_of(path, name, commit);
                }
            }
        });
    }

    /// Renders a directory at a commit.
    pub(crate) fn render(&self, commit: usize, path: &str) -> Result<Rendered, String> {
        let tree = self.commits.get(commit).ok_or_else(|| format!("there is no commit {commit}"))?;
        let directory = tree.get(path).ok_or_else(|| format!("{path}: no such directory at commit {commit}"))?;
        if directory.broken {
            return Err(format!("{path}/web.yaml:3: mapping values are not allowed here"));
        }
        let (mut resources, mut blobs, mut kinds) = (Vec::new(), Vec::new(), Vec::new());
        for manifest in directory.manifests.values() {
            let content = manifest::canonical(manifest);
            let (digest, key) = (Digest::of(&content), ResourceKey::of(manifest));
            kinds.push((key.group.clone(), key.kind.clone(), key.namespace.clone()));
            let size = u32::try_from(content.len()).map_err(|error| error.to_string())?;
            resources.push(ResourceRef { key, digest, size, sealed: false });
            blobs.push((digest, Arc::new(content)));
        }
        let index =
            codec::to_bytes(&BundleIndex::V1 { resources }, BLOB_BYTES_MAX).map_err(|error| error.to_string())?;
        let digest = Digest::of(&index);
        blobs.push((digest, Arc::new(index)));
        Ok(Rendered { bundle: BundleRef { digest, revision: format!("{commit:040x}") }, blobs, kinds })
    }
}

/// A manifest that differs with each commit; `web` is a Deployment, all others are ConfigMaps.
fn manifest_of(path: &str, name: &str, commit: usize) -> Value {
    let object = format!("{}-{name}", path.replace('/', "-"));
    if name == "web" {
        let replicas = 1 + commit % 3;
        return json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": object},
            "spec": {
                "replicas": replicas,
                "template": {"metadata": {"labels": {"app": object, "commit": format!("c{commit}")}}},
            },
        });
    }
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": object},
        "data": {"commit": commit.to_string(), format!("only-{}", commit % 3): "x"},
    })
}
