//! What people ask for: syncs by the `operation` field, fresh comparisons by annotation.

use std::sync::Arc;

use windlass_hub_core::{
    Command, ObjectRecord,
    planner::{self, Applications, Asked, Prepared},
};
use windlass_protocol::{
    ids::NamespacedName,
    message::{BundleRef, Operation},
    resource::ApplicationOperation,
};

use super::Planner;
use crate::{generator_trees::reference, repositories::Repositories};

/// A refresh that a repository does not answer is answered with what is known, after this many milliseconds.
const REFRESH_MAX_MS: u64 = 20_000;

impl Planner {
    pub(super) async fn answer_requests(&mut self, repositories: &Repositories) {
        let state = self.replica.state();
        let mut refreshing = std::mem::take(&mut self.refreshing);
        for asked in planner::asked(&state) {
            match asked {
                Asked::Operation { application, record, operation } => {
                    self.begin_operation(application, record, operation, repositories).await;
                }
                Asked::Refresh { application, record, hard } => {
                    let since = refreshing.remove(&application);
                    self.refresh(application, &record, hard, since, repositories).await;
                }
            }
        }
    }

    async fn begin_operation(
        &mut self,
        application: NamespacedName,
        record: Arc<ObjectRecord>,
        asked: Result<Box<ApplicationOperation>, String>,
        repositories: &Repositories,
    ) {
        let uid = record.uid.clone();
        let operation = match asked {
            Ok(asked) => self.resolve(&application, &record, &asked, repositories).await,
            Err(message) => Err(message),
        };
        let command = match operation {
            Ok(Some(operation)) => Command::Operate { application, uid, operation },
            // The target is not known yet; a later pass will.
            Ok(None) => return,
            Err(message) => Command::RefuseOperation { application, uid, message },
        };
        self.propose("operation", command).await;
    }

    /// The operation, `None` while the Application's target is not known yet.
    async fn resolve(
        &mut self,
        application: &NamespacedName,
        record: &ObjectRecord,
        asked: &ApplicationOperation,
        repositories: &Repositories,
    ) -> Result<Option<Operation>, String> {
        let sync = asked.sync.clone().unwrap_or_default();
        if !sync.manifests.is_empty() || sync.source.is_some() {
            return Err("syncing local manifests or another source is not supported: commit it".to_owned());
        }
        let state = self.replica.state();
        let render = match Applications::new(&state).prepare(application, record) {
            Prepared::Render(render) => render,
            Prepared::Blocked(change) => {
                let reasons: Vec<String> = change.conditions.into_iter().map(|condition| condition.message).collect();
                return Err(reasons.join("; "));
            }
        };
        let assignment = state.assignment(application);
        let target = assignment.and_then(|assignment| assignment.target.as_ref());
        let revision = sync.revision.as_str();
        let is_target = target.is_some_and(|target| revision.is_empty() || target.revision == revision);
        if is_target || (!revision.is_empty() && revision == render.source.target_revision && target.is_some()) {
            return Ok(Some(planner::operation(asked, None)));
        }
        if revision.is_empty() {
            let problems = record.value().pointer("/status/conditions/0/message").cloned().unwrap_or_default();
            return match problems.as_str() {
                Some(message) => Err(message.to_owned()),
                None => Ok(None),
            };
        }
        let bundle = self.bundle_at(*render, revision, repositories).await?;
        Ok(Some(planner::operation(asked, Some(bundle))))
    }

    /// Renders an Application at a revision that somebody asked for.
    async fn bundle_at(
        &self,
        render: planner::ToRender,
        revision: &str,
        repositories: &Repositories,
    ) -> Result<BundleRef, String> {
        let repository = repositories.repository(&render.source.repo_url);
        let commit = self.sources.resolve(&repository, reference(revision)).await.map_err(|error| error.to_string())?;
        let tree = self.sources.tree(&repository, &commit).await.map_err(|error| error.to_string())?;
        let rendered = self.renderer.render(&render, tree, &commit).await;
        let (observed, lease) = rendered.map_err(|problems| problems.join("; "))?;
        // Kept from collection from here on, longer than the proposal takes.
        self.renderer.secure(&lease).await.map_err(|error| error.to_string())?;
        Ok(observed.bundle)
    }

    /// Polls the source, and says that the refresh is done once the poll has answered.
    async fn refresh(
        &mut self,
        application: NamespacedName,
        record: &ObjectRecord,
        hard: bool,
        since: Option<u64>,
        repositories: &Repositories,
    ) {
        let now = crate::replica::wall_clock().0;
        let state = self.replica.state();
        let prepared = Applications::new(&state).prepare(&application, record);
        let checked_at = match &prepared {
            Prepared::Blocked(_) => u64::MAX,
            Prepared::Render(render) => {
                let repository = repositories.repository(&render.source.repo_url);
                let reference = reference(&render.source.target_revision).to_owned();
                let seen = self.watches.watch(&application, &repository, &reference).await;
                if since.is_none() {
                    self.sources.refresh(&render.source.repo_url, Some(&reference)).await;
                }
                seen.checked_at_ms
            }
        };
        let began = since.unwrap_or(now);
        let answered = checked_at > began || now.saturating_sub(began) > REFRESH_MAX_MS;
        if since.is_some() && answered || checked_at == u64::MAX {
            self.seen.remove(&application);
            let uid = record.uid.clone();
            self.propose("refresh", Command::Refreshed { application, uid, hard }).await;
        } else {
            self.refreshing.insert(application, began);
            self.watches.look_again();
        }
    }
}
