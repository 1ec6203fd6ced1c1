//! ApplicationSets: resolves what their generators read, generates off the async threads, proposes the difference.

use std::sync::Arc;

use windlass_hub_core::{
    Command, ObjectKey, ObjectRecord,
    command::{ENVELOPE_BYTES_MAX, Write},
    generate::{self, GenerateLimits},
    planner::{Applications, sets},
};
use windlass_protocol::{
    ids::Digest,
    resource::{ApplicationSetSpec, Kind, parse},
};

use super::Planner;
use crate::{
    generator_trees::{Trees, reference},
    replica::wall_clock,
    repositories::Repositories,
};

/// Writes in one command.
const WRITES_PER_COMMAND_MAX: usize = 100;
impl Planner {
    pub(super) async fn plan_sets(&mut self, repositories: &Repositories) {
        let state = self.replica.state();
        let sets: Vec<(ObjectKey, Arc<ObjectRecord>)> = state
            .objects(Kind::ApplicationSet, None)
            .filter(|(_, record)| !record.deleting)
            .map(|(key, record)| (key.clone(), Arc::clone(record)))
            .collect();
        let context = super::context(&state);
        self.set_state.retain(|key, _| sets.iter().any(|(set, _)| set == key));
        for (key, record) in sets {
            let value = record.value();
            let spec = parse::<ApplicationSetSpec>("spec", value.get("spec").unwrap_or(&serde_json::Value::Null));
            // Objects are checked when they are written; only an older build could have let this through.
            let Ok(spec) = spec.map(|parsed| parsed.value) else { continue };
            let (trees, commits, pending) = self.trees(&spec, repositories).await;
            if pending {
                continue;
            }
            let owned = owned_fingerprint(&state, &key, &record.uid);
            let text = format!("{} {} {context} {commits} {owned}", record.uid, record.generation);
            let fingerprint = Digest::of(text.as_bytes());
            if self.set_state.get(&key) == Some(&fingerprint) {
                continue;
            }
            if self.plan_set(&key, &record, spec, trees).await {
                self.set_state.insert(key, fingerprint);
            }
        }
    }

    /// Generates one set and proposes what is new; says whether everything was taken.
    async fn plan_set(
        &self,
        key: &ObjectKey,
        record: &Arc<ObjectRecord>,
        spec: ApplicationSetSpec,
        trees: Trees,
    ) -> bool {
        let state = self.replica.state();
        let clusters = Applications::cluster_views(&state);
        let (name, shared) = (key.name.clone(), spec.clone());
        let limits = GenerateLimits::default();
        let generating =
            tokio::task::spawn_blocking(move || generate::generate(&name, &shared, &clusters, &trees, &limits));
        let Ok(result) = generating.await else {
            tracing::error!(set = %key, "the generator ended");
            return false;
        };
        let new_uid = || self.replica.new_uid().unwrap_or_default();
        let plan = sets::plan(&state, key, record, &spec, &result, wall_clock(), new_uid);
        let mut taken = true;
        for writes in chunks(plan.writes.into_iter().chain(plan.status)) {
            taken &= self.propose("applicationset", Command::Write { writes }).await;
        }
        taken
    }

    /// Trees for the git generators, a text of the commits, and whether some reference is not resolved yet.
    async fn trees(&mut self, spec: &ApplicationSetSpec, repositories: &Repositories) -> (Trees, String, bool) {
        let (mut trees, mut commits, mut pending) = (Trees::default(), String::new(), false);
        for git in spec.generators.iter().filter_map(|generator| generator.git.as_ref()) {
            let repository = repositories.repository(&git.repo_url);
            let state = self.watches.watch_ref(&repository, reference(&git.revision)).await;
            let tree = match (&state.commit, &state.error) {
                (Some(commit), _) => {
                    commits.push_str(commit.as_str());
                    self.sources.tree(&repository, commit).await.map_err(|error| error.to_string())
                }
                (None, Some(error)) => Err(error.to_string()),
                (None, None) => {
                    pending = true;
                    continue;
                }
            };
            if let Err(error) = &tree {
                commits.push_str(error);
            }
            trees.insert(&git.repo_url, &git.revision, tree);
        }
        (trees, commits, pending)
    }
}

/// What of the Applications of a set may make a difference: that they are there, and as the set wants them.
fn owned_fingerprint(state: &windlass_hub_core::State, key: &ObjectKey, uid: &String) -> String {
    let applications = state.objects(Kind::Application, Some(&key.name.namespace));
    let owned = applications.filter(|(_, record)| record.owners.contains(uid));
    let text: Vec<String> = owned
        .map(|(key, record)| format!("{} {} {} {:?}", key.name, record.generation, record.deleting, record.labels))
        .collect();
    Digest::of(text.join("\n").as_bytes()).to_string()
}

/// Groups writes so that each command stays within an entry.
fn chunks(writes: impl Iterator<Item = Write>) -> Vec<Vec<Write>> {
    let mut chunks: Vec<Vec<Write>> = Vec::new();
    let mut bytes = 0;
    for write in writes {
        let size = match &write {
            Write::Create { body, .. } | Write::Replace { body, .. } => body.len() + 512,
            Write::Delete { .. } => 512,
        };
        let full = chunks
            .last()
            .is_none_or(|chunk| chunk.len() >= WRITES_PER_COMMAND_MAX || bytes + size > ENVELOPE_BYTES_MAX / 2);
        if full {
            chunks.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(chunk) = chunks.last_mut() {
            chunk.push(write);
        }
    }
    chunks
}
