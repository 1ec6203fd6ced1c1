//! `get` and `list`: from this node's replica, behind a read barrier unless the client takes what is there.

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use http::{HeaderValue, Response, StatusCode};
use windlass_hub_core::{ObjectKey, State};
use windlass_protocol::{ids::StateRevision, resource::Kind};

use super::{
    answer,
    entry::{ApiServer, Asked},
    error::ApiError,
    media,
    object::View,
    route::Target,
    selector::Selector,
    table::{Header, Presentation},
};
use crate::{raft::ReadError, replica::wall_clock};

/// How long a read waits for the leader's word before it is answered from here and labelled.
const BARRIER_TIME_MAX: Duration = Duration::from_secs(2);
/// How long a read waits for a revision that this node has not seen.
const REVISION_TIME_MAX: Duration = Duration::from_secs(3);

/// How a state relates to what was acknowledged elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freshness {
    /// Holds everything acknowledged before the request.
    Linearizable,
    /// As the client asked.
    AsAsked,
    /// A follower's; may be behind.
    Follower,
    /// No quorum answers; may be behind for long.
    Stale,
}

impl Freshness {
    pub(super) fn label(self, response: &mut Response<Body>) {
        let label = match self {
            Self::Linearizable | Self::AsAsked => return,
            Self::Follower => "follower",
            Self::Stale => "stale",
        };
        response.headers_mut().insert(answer::READ_HEADER, HeaderValue::from_static(label));
    }
}

impl ApiServer {
    pub(super) fn view(&self, state: Arc<State>) -> View {
        View { state, sealer: Arc::clone(&self.context.sealer), details: Arc::clone(&self.context.details) }
    }

    /// One object.
    pub(super) async fn get(&self, asked: &Asked, key: &ObjectKey) -> Result<Response<Body>, ApiError> {
        let form = media::form(&asked.headers)?;
        let presentation = Presentation::new(key.kind, form, &asked.query, wall_clock())?;
        let (state, freshness) = self.read_state(asked.query.revision()?).await?;
        let view = self.view(state);
        let key = key.clone();
        let text = blocking(key.kind, move || {
            let record = view.state.object(&key).ok_or_else(|| ApiError::not_found(&key))?;
            presentation.object(&view, &key, record, Header::Present)
        });
        // That there is no such object may be old news, too.
        let mut response = match text.await {
            Ok(text) => answer::json_text(StatusCode::OK, text),
            Err(error) => error.response(),
        };
        freshness.label(&mut response);
        Ok(response)
    }

    /// The objects of a kind that a selector takes; all at once, as a server may.
    pub(super) async fn list(&self, asked: &Asked, target: &Target) -> Result<Response<Body>, ApiError> {
        let form = media::form(&asked.headers)?;
        let presentation = Presentation::new(target.kind, form, &asked.query, wall_clock())?;
        let selector =
            Selector::parse(target.kind, asked.query.get("labelSelector"), asked.query.get("fieldSelector"))?;
        let revision = asked.query.revision()?;
        if asked.query.get("continue").is_some() {
            return Err(ApiError::expired("the continue token is not known here: list again without it"));
        }
        let (state, freshness) = self.read_state(revision).await?;
        let now = state.meta().revision;
        if asked.query.get("resourceVersionMatch") == Some("Exact") && revision.is_some_and(|asked| asked != now) {
            return Err(ApiError::expired("only the newest resource version can be listed exactly"));
        }
        let view = self.view(state);
        let target = target.clone();
        let text = blocking(Kind::Application, move || {
            let objects = view.state.objects(target.kind, target.namespace.as_deref());
            let objects = objects.map(|(key, record)| (key, record.as_ref()));
            presentation.list(&view, objects.filter(|(key, record)| selector.matches(key, record)), now)
        });
        let mut response = answer::json_text(StatusCode::OK, text.await?);
        freshness.label(&mut response);
        Ok(response)
    }

    /// A state that is new enough for `resourceVersion`.
    pub(super) async fn read_state(&self, asked: Option<StateRevision>) -> Result<(Arc<State>, Freshness), ApiError> {
        let replica = &self.context.replica;
        let freshness = match asked {
            Some(StateRevision::ZERO) => Freshness::AsAsked,
            Some(revision) => {
                self.wait_for(revision).await?;
                Freshness::AsAsked
            }
            None => match tokio::time::timeout(BARRIER_TIME_MAX, replica.read_barrier()).await {
                Ok(Ok(())) => Freshness::Linearizable,
                Ok(Err(ReadError::NotLeader { leader: Some(_), .. })) => Freshness::Follower,
                Ok(Err(_)) | Err(_) => Freshness::Stale,
            },
        };
        Ok((replica.state(), freshness))
    }

    /// A state that holds everything acknowledged before: a request is refused for what an object is, or is not, only by
    /// such a state, since this node's own may be behind what the client has seen at another hub.
    pub(super) async fn newest_state(&self) -> Result<Arc<State>, ApiError> {
        let replica = &self.context.replica;
        match tokio::time::timeout(BARRIER_TIME_MAX, replica.read_barrier()).await {
            Ok(Ok(())) => Ok(replica.state()),
            Ok(Err(error)) => Err(ApiError::unavailable(error.to_string())),
            Err(_) => Err(ApiError::unavailable("no quorum of hubs answered in time")),
        }
    }

    /// Waits until this node has applied a revision that the client has seen elsewhere.
    pub(super) async fn wait_for(&self, revision: StateRevision) -> Result<(), ApiError> {
        let mut revisions = self.context.replica.machine().revision();
        let reached = revisions.wait_for(|now| *now >= revision);
        match tokio::time::timeout(REVISION_TIME_MAX, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ApiError::unavailable("this hub is shutting down")),
            Err(_) => {
                let now = self.context.replica.state().meta().revision;
                let message = format!("Too large resource version: {revision}, current: {now}");
                Err(ApiError::timeout(message).cause("ResourceVersionTooLarge", "Too large resource version"))
            }
        }
    }
}

/// Runs what may read blobs, or goes over many objects, where it holds nobody up.
pub(super) async fn blocking<T: Send + 'static>(
    kind: Kind,
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    if kind != Kind::Application {
        return work();
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(ApiError::internal("the answer could not be written")))
}
