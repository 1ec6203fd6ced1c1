//! The worker pool that turns an Application at a commit into a stored bundle, and the memo that avoids it.
//!
//! The renderer says which paths it read. If those have the same object ids at another commit and the parameters are the same,
//! the bundle is the same: a commit that touches one of 10,000 paths renders one Application.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::Value;
use tokio::sync::Semaphore;
use windlass_hub_core::planner::{Observed, ToRender};
use windlass_protocol::{ids::Digest, json, manifest, message::BundleRef};
use windlass_render::{BuildEnvironment, Limits, Request, Tree};

use crate::{
    blobs::{BundleError, Bundles},
    source::CommitId,
    store::blobs::BlobLease,
};

/// Memo entries: one per Application (DESIGN.md section 10), each a few kilobytes at most.
const MEMO_MAX: usize = 100_000;
/// Images listed in `status.summary`.
const IMAGES_MAX: usize = 100;

/// Renders with a bounded number of workers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Renderer {
    bundles: Bundles,
    limits: Limits,
    timeout: Duration,
    workers: Arc<Semaphore>,
    memo: Arc<Mutex<BTreeMap<Digest, Arc<Remembered>>>>,
}

#[derive(Debug)]
struct Remembered {
    /// Object ids of what was read.
    read: BTreeMap<String, Option<String>>,
    observed: Observed,
}

impl Renderer {
    /// With at most `workers` renderings at a time, each within `timeout`.
    #[must_use]
    pub fn new(bundles: Bundles, limits: Limits, timeout: Duration, workers: usize) -> Self {
        Self { bundles, limits, timeout, workers: Arc::new(Semaphore::new(workers)), memo: Arc::default() }
    }

    /// Renders an Application at a commit and stores the bundle; the lease holds it until it is committed.
    ///
    /// # Errors
    /// What is wrong, with file, line or field; each text is a condition of its own.
    pub async fn render(
        &self,
        application: &ToRender,
        tree: Arc<dyn Tree>,
        commit: &CommitId,
    ) -> Result<(Observed, Option<BlobLease>), Vec<String>> {
        let work = Work {
            renderer: self.clone(),
            source: application.source.clone(),
            environment: environment(application, commit),
            revision: commit.as_str().to_owned(),
            tree,
        };
        let Ok(permit) = Arc::clone(&self.workers).acquire_owned().await else {
            return Err(vec!["the hub shuts down".to_owned()]);
        };
        let running = tokio::task::spawn_blocking(move || {
            // Held by the thread, not by the waiter: a rendering that overruns still counts.
            let _permit = permit;
            work.run()
        });
        match tokio::time::timeout(self.timeout, running).await {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => Err(vec![format!("the renderer ended: {error}")]),
            Err(_) => {
                let seconds = self.timeout.as_secs();
                Err(vec![format!("rendering took longer than limits.render_seconds = {seconds}")])
            }
        }
    }

    /// Has the blobs of these leases on a majority of hubs: to be awaited before their digests are proposed.
    ///
    /// # Errors
    /// [`BundleError`] names the hubs that did not answer.
    pub async fn secure<'a>(&self, leases: impl IntoIterator<Item = &'a BlobLease>) -> Result<(), BundleError> {
        self.bundles.secure(leases).await
    }

    fn remember(&self, key: Digest, remembered: Remembered) {
        let mut memo = self.memo.lock().unwrap_or_else(PoisonError::into_inner);
        if memo.len() >= MEMO_MAX {
            memo.pop_first();
        }
        memo.insert(key, Arc::new(remembered));
    }

    fn remembered(&self, key: &Digest) -> Option<Arc<Remembered>> {
        self.memo.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }
}

struct Work {
    renderer: Renderer,
    source: windlass_protocol::resource::ApplicationSource,
    environment: BuildEnvironment,
    revision: String,
    tree: Arc<dyn Tree>,
}

impl Work {
    fn run(self) -> Result<(Observed, Option<BlobLease>), Vec<String>> {
        let key = self.key();
        if let Some(known) = self.renderer.remembered(&key) {
            let same = known.read.iter().all(|(path, id)| self.tree.object_id(path).is_ok_and(|now| now == *id));
            // A bundle that was never released may have been collected since.
            let kept = || self.renderer.bundles.lease(&known.observed.bundle.digest).ok().flatten();
            if same && let Some(lease) = kept() {
                let bundle = BundleRef { digest: known.observed.bundle.digest, revision: self.revision };
                return Ok((Observed { bundle, ..known.observed.clone() }, Some(lease)));
            }
        }
        let request = Request {
            tree: self.tree.as_ref(),
            source: &self.source,
            environment: &self.environment,
            limits: &self.renderer.limits,
        };
        let rendered = windlass_render::render(&request)
            .map_err(|error| error.problems.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        let (digest, lease) =
            self.renderer.bundles.put(&rendered.manifests).map_err(|error| vec![error.to_string()])?;
        let observed = Observed {
            bundle: BundleRef { digest, revision: self.revision.clone() },
            source_type: rendered.source_type.name().to_owned(),
            images: images(&rendered.manifests),
            kinds: rendered.manifests.iter().map(kind).collect(),
            warnings: rendered.warnings,
        };
        self.renderer.remember(key, Remembered { read: rendered.read, observed: observed.clone() });
        Ok((observed, Some(lease)))
    }

    /// Everything besides the tree that the output depends on.
    fn key(&self) -> Digest {
        let source = serde_json::to_vec(&self.source).unwrap_or_default();
        let mut text = source.clone();
        text.extend_from_slice(self.environment.app_name.as_bytes());
        text.push(0);
        text.extend_from_slice(self.environment.app_namespace.as_bytes());
        text.push(0);
        text.extend_from_slice(self.environment.project_name.as_bytes());
        // The commit itself counts only where the source can see it.
        if String::from_utf8_lossy(&source).contains("ARGOCD_APP_REVISION") {
            text.extend_from_slice(self.revision.as_bytes());
        }
        Digest::of(&text)
    }
}

fn environment(application: &ToRender, commit: &CommitId) -> BuildEnvironment {
    let name = application.application();
    BuildEnvironment {
        app_name: name.name.clone(),
        app_namespace: application.namespace().to_owned(),
        project_name: application.project.clone(),
        revision: commit.as_str().to_owned(),
        ..BuildEnvironment::default()
    }
}

fn kind(manifest: &Value) -> (String, String, String) {
    let (group, _) = manifest::group_version(manifest);
    (group.to_owned(), manifest::kind(manifest).to_owned(), manifest::namespace(manifest).to_owned())
}

/// Images of all pod templates, sorted, for `status.summary`.
fn images(manifests: &[Value]) -> Vec<String> {
    let mut images = BTreeSet::new();
    for manifest in manifests {
        for path in [&["spec", "template", "spec"][..], &["spec"], &["spec", "jobTemplate", "spec", "template", "spec"]]
        {
            let Some(pod) = json::at(manifest, path) else { continue };
            for list in ["containers", "initContainers"] {
                let containers = pod.get(list).and_then(Value::as_array).into_iter().flatten();
                images.extend(containers.filter_map(|container| container.get("image")?.as_str().map(str::to_owned)));
            }
        }
    }
    images.into_iter().take(IMAGES_MAX).collect()
}
