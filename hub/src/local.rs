//! What the API asks of the rest of the hub: details, join tokens, manifests, generators, webhooks, presence.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::HeaderMap;
use serde_json::{Value, json};
use windlass_hub_core::{
    Command,
    generate::{self, GenerateLimits},
    planner::Applications,
};
use windlass_protocol::{
    ids::{Digest, NamespacedName},
    json,
    resource::{ApplicationSetSpec, parse},
    time::Millis,
};
use windlass_transport::identity::RootPin;

use crate::{
    api::{
        Admission, ApiContext, ApiLimits, ApiServer, BackupStream, BackupStreams, Details, Generators, JoinToken,
        Manifests, Presence, ProviderError, Webhook,
    },
    backup::BackupDesk,
    blobs::Bundles,
    config::Config,
    gateway::Registry,
    generator_trees::Trees,
    init::join_token,
    replica::{Replica, wall_clock},
    repositories::Repositories,
    sealing::Sealer,
    source::{
        Sources,
        webhook::{self, Event},
    },
    trust::Trust,
};

/// This node's answers to the API.
#[derive(Debug)]
pub(crate) struct Local {
    pub(crate) replica: Replica,
    pub(crate) bundles: Bundles,
    pub(crate) sources: Sources,
    pub(crate) sealer: Arc<Sealer>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) trust: Arc<Trust>,
    pub(crate) hubs: Vec<String>,
    pub(crate) webhook_secret: Option<Vec<u8>>,
    pub(crate) backups: BackupDesk,
}

impl Local {
    /// Where agents find the hubs.
    fn hubs(&self) -> Vec<String> {
        let known = self.replica.state().hub_addresses();
        if known.is_empty() { self.hubs.clone() } else { known }
    }
}

/// The API over this node.
pub(crate) fn api(config: &Config, replica: Replica, sealer: Arc<Sealer>, local: Arc<Local>) -> ApiServer {
    let limits = ApiLimits {
        in_flight: config.limits.requests,
        watches: config.limits.watches,
        body_bytes: config.limits.object_bytes.saturating_add(config.limits.object_bytes / 2),
        ..ApiLimits::default()
    };
    ApiServer::new(ApiContext {
        replica,
        sealer,
        details: Arc::clone(&local) as _,
        admission: Arc::clone(&local) as _,
        manifests: Arc::clone(&local) as _,
        generators: Arc::clone(&local) as _,
        webhook: Arc::clone(&local) as _,
        presence: Arc::clone(&local) as _,
        backups: local,
        limits,
    })
}

impl Details for Local {
    fn detail(&self, digest: &Digest) -> Option<Value> {
        self.bundles.detail(digest)
    }
}

impl BackupStreams for Local {
    fn backup(&self) -> BoxFuture<'_, Result<BackupStream, ProviderError>> {
        Box::pin(self.backups.stream())
    }
}

impl Presence for Local {
    fn sessions(&self) -> usize {
        self.registry.count()
    }

    fn pin(&self) -> RootPin {
        self.trust.pin()
    }
}

impl Admission for Local {
    fn join_token<'a>(
        &'a self,
        subject: &'a str,
        cluster: &'a str,
        expires_in: Duration,
    ) -> BoxFuture<'a, Result<JoinToken, ProviderError>> {
        Box::pin(async move {
            let (token, hash) = join_token(self.replica.random_bytes()?);
            let expires_in = Millis(u64::try_from(expires_in.as_millis()).unwrap_or(u64::MAX));
            let expires_at = wall_clock().plus(expires_in);
            let command = Command::AddToken { hash, cluster: cluster.to_owned(), expires_at };
            self.replica.propose(subject, "api", Vec::new(), command).await?;
            Ok(JoinToken { token, expires_at, root_pin: self.trust.pin().to_string(), hubs: self.hubs() })
        })
    }
}

impl Manifests for Local {
    fn manifests<'a>(&'a self, application: &'a NamespacedName) -> BoxFuture<'a, Result<Vec<Value>, ProviderError>> {
        Box::pin(async move {
            let state = self.replica.state();
            let assignment = state.assignment(application).ok_or_else(|| {
                ProviderError::NotFound(format!("{application} has no rendered manifests: see its conditions"))
            })?;
            let Some(target) = assignment.target.clone() else { return Ok(Vec::new()) };
            let read = self.bundles.manifests(&target.digest).await;
            read.map_err(|error| ProviderError::Unavailable(error.to_string()))
        })
    }
}

impl Generators for Local {
    fn generate<'a>(&'a self, namespace: &'a str, set: Value) -> BoxFuture<'a, Result<Vec<Value>, ProviderError>> {
        Box::pin(async move {
            let state = self.replica.state();
            let invalid = |error: &dyn std::fmt::Display| ProviderError::Invalid(error.to_string());
            let spec = parse::<ApplicationSetSpec>("spec", set.get("spec").unwrap_or(&Value::Null));
            let spec = spec.map_err(|error| invalid(&error))?.value;
            let repositories = Repositories::new(&state, &self.sealer);
            let trees = Trees::resolve(&spec, &repositories, &self.sources).await;
            let clusters = Applications::cluster_views(&state);
            let name = NamespacedName::new(namespace, json::text(&set, &["metadata", "name"]));
            let generating = tokio::task::spawn_blocking(move || {
                generate::generate(&name, &spec, &clusters, &trees, &GenerateLimits::default())
            });
            let result = generating.await.map_err(|error| ProviderError::Internal(error.to_string()))?;
            let generated = result.map_err(|error| invalid(&error))?;
            let application = |one: generate::Generated| {
                json!({
                    "apiVersion": "argoproj.io/v1alpha1",
                    "kind": "Application",
                    "metadata": {
                        "name": one.name, "namespace": one.namespace, "labels": one.labels,
                        "annotations": one.annotations, "finalizers": one.finalizers,
                    },
                    "spec": one.spec,
                })
            };
            Ok(generated.into_iter().map(application).collect())
        })
    }
}

impl Webhook for Local {
    fn deliver(&self, headers: HeaderMap, body: Bytes) -> BoxFuture<'_, Result<String, ProviderError>> {
        Box::pin(async move {
            let Some(secret) = &self.webhook_secret else {
                return Err(ProviderError::NotFound("no webhook secret is configured: webhook_secret_file".to_owned()));
            };
            let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
            webhook::verify_signature(secret, header(webhook::SIGNATURE_HEADER), &body)
                .map_err(|error| ProviderError::Unauthorized(error.to_string()))?;
            let event = header(webhook::EVENT_HEADER).unwrap_or_default();
            let event =
                webhook::parse_event(event, &body).map_err(|error| ProviderError::Invalid(error.to_string()))?;
            let Event::Push(hint) = event else { return Ok("pong".to_owned()) };
            let mut woken = 0;
            for url in &hint.urls {
                woken += self.sources.refresh(url, Some(&hint.reference)).await;
            }
            tracing::info!(reference = hint.reference, pollers = woken, "push announced by webhook");
            Ok(format!("{woken} sources are polled now"))
        })
    }
}
