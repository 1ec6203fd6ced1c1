//! The way in: limits, the account, the access log, and the route to what answers.

use std::{fmt, net::SocketAddr, sync::Arc, time::Instant};

use axum::{Router, body::Body, extract::State as Shared};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, request::Parts};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use windlass_hub_core::ObjectKey;

use super::{
    accounts::{ADMIN_ACCOUNT, Accounts},
    answer, body, discovery,
    error::ApiError,
    openapi,
    ports::ApiContext,
    query::Query,
    reviews,
    route::{Route, Target, TargetPart},
    serve::Remote,
};

/// The resource API over one replica.
pub struct ApiServer {
    pub(super) context: ApiContext,
    accounts: Accounts,
    in_flight: Semaphore,
    pub(super) watches: Arc<Semaphore>,
    pub(super) webhooks: Semaphore,
}

impl fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiServer").field("limits", &self.context.limits).finish_non_exhaustive()
    }
}

/// One authenticated request without its body.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) query: Query,
    /// Name of the account.
    pub(super) account: String,
    /// Subject of proposals.
    pub(super) subject: String,
    /// Source of proposals.
    pub(super) source: String,
    /// Ends watches when the server stops.
    pub(super) stopping: CancellationToken,
}

impl ApiServer {
    /// Over these parts.
    #[must_use]
    pub fn new(context: ApiContext) -> Self {
        let limits = &context.limits;
        let permits = |count: usize| count.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            accounts: Accounts::new(Arc::clone(&context.sealer), limits.failures_per_minute),
            in_flight: Semaphore::new(permits(limits.in_flight)),
            watches: Arc::new(Semaphore::new(permits(limits.watches))),
            webhooks: Semaphore::new(permits(limits.webhooks)),
            context,
        }
    }

    /// Answers every path, with a `Status` where there is nothing; other routes may be added before it.
    pub fn router(self) -> Router {
        Router::new().fallback(entry).with_state(Arc::new(self))
    }

    /// The answer, and the account that asked.
    async fn answer(&self, parts: Parts, body: Body) -> (Result<Response<Body>, ApiError>, String) {
        let Some(route) = Route::of(parts.uri.path()) else {
            // Strangers learn nothing from 404 either.
            let account = self.authenticate(&parts);
            return match account {
                Ok(account) => (Err(ApiError::no_such_path()), account),
                Err(error) => (Err(error), String::new()),
            };
        };
        if route.is_public() {
            return (self.answer_public(&route, parts, body).await, String::new());
        }
        let asked = match self.asked(parts) {
            Ok(asked) => asked,
            Err(error) => return (Err(error), String::new()),
        };
        let account = asked.account.clone();
        (self.answer_account(&route, asked, body).await, account)
    }

    async fn answer_public(&self, route: &Route, parts: Parts, body: Body) -> Result<Response<Body>, ApiError> {
        match route {
            Route::Webhook => self.webhook(parts, body).await,
            Route::Version => Ok(answer::json(StatusCode::OK, &discovery::version())),
            Route::Ready if self.context.replica.raft().status().borrow().leader.is_none() => {
                Ok(answer::plain(StatusCode::SERVICE_UNAVAILABLE, "no leader is known"))
            }
            _ => Ok(answer::plain(StatusCode::OK, "ok")),
        }
    }

    fn authenticate(&self, parts: &Parts) -> Result<String, ApiError> {
        let address = parts.extensions.get::<Remote>().map(|remote| remote.address.ip());
        self.accounts.authenticate(&self.context.replica.state(), &parts.headers, address, Instant::now())
    }

    fn asked(&self, parts: Parts) -> Result<Asked, ApiError> {
        let account = self.authenticate(&parts)?;
        let remote = parts.extensions.get::<Remote>();
        Ok(Asked {
            query: Query::of(&parts.uri)?,
            subject: format!("user:{account}"),
            account,
            source: remote.map(|remote| source(remote.address)).unwrap_or_default(),
            stopping: remote.map(|remote| remote.stopping.clone()).unwrap_or_default(),
            method: parts.method,
            headers: parts.headers,
        })
    }

    async fn answer_account(&self, route: &Route, asked: Asked, body: Body) -> Result<Response<Body>, ApiError> {
        if let Route::Resource(target) = route {
            authorize(&asked, target)?;
            if asked.method == Method::GET && asked.query.flag("watch") {
                return self.watch(asked, target).await;
            }
        }
        let _place = self
            .in_flight
            .try_acquire()
            .map_err(|_| ApiError::too_many_requests("too many requests in flight, please try again later"))?;
        match route {
            Route::Resource(target) => self.resource(&asked, target, body).await,
            Route::Review(review) => {
                let bytes = self.read_body(body).await?;
                reviews::answer(*review, &asked, &bytes)
            }
            Route::HubBackup => self.hub_backup(&asked).await,
            Route::HubStatus => self.hub_status(&asked).await,
            Route::HubToken => self.hub_token(&asked, body).await,
            Route::HubTrust(step) => self.hub_trust(&asked, *step, body).await,
            Route::HubAction { node, action } => self.hub_action(&asked, node, *action).await,
            Route::JoinToken { cluster } => self.join_token(&asked, cluster, body).await,
            Route::Manifests { namespace, name } => self.manifests(&asked, namespace, name).await,
            Route::Generate { namespace } => self.generate(&asked, namespace, body).await,
            _ if asked.method != Method::GET => Err(ApiError::method_not_allowed()),
            Route::CoreVersions => Ok(discovery::core_versions(&asked.headers)),
            Route::Groups => Ok(discovery::groups(&asked.headers)),
            Route::Group(group) => discovery::group(group),
            Route::GroupVersion { group, version } => discovery::group_version(group, version),
            Route::OpenApiV2 => openapi::v2(&asked.headers),
            Route::OpenApiV3 => Ok(openapi::v3()),
            Route::OpenApiV3Of { group, version } => openapi::v3_of(group, version),
            Route::Version | Route::Health | Route::Ready | Route::Webhook => Err(ApiError::no_such_path()),
        }
    }

    async fn resource(&self, asked: &Asked, target: &Target, body: Body) -> Result<Response<Body>, ApiError> {
        let namespace = target.namespace.as_deref().unwrap_or_default();
        let key = target.name.as_deref().map(|name| ObjectKey::new(target.kind, namespace, name));
        match (&asked.method, key) {
            (&Method::GET, None) => self.list(asked, target).await,
            (&Method::GET, Some(key)) => self.get(asked, &key).await,
            (&Method::POST, None) if !target.spans_namespaces() => {
                let bytes = self.read_body(body).await?;
                self.create(asked, target.kind, namespace, &bytes).await
            }
            (&Method::PUT, Some(key)) => {
                let bytes = self.read_body(body).await?;
                self.replace(asked, &key, target.part, &bytes).await
            }
            (&Method::PATCH, Some(key)) => {
                let bytes = self.read_body(body).await?;
                self.patch(asked, &key, target.part, &bytes).await
            }
            (&Method::DELETE, Some(key)) if target.part == TargetPart::Whole => {
                let bytes = self.read_body(body).await?;
                self.delete(asked, &key, &bytes).await
            }
            (&Method::DELETE, None) if !target.spans_namespaces() => {
                let bytes = self.read_body(body).await?;
                self.delete_collection(asked, target, &bytes).await
            }
            _ => Err(ApiError::method_not_allowed()),
        }
    }

    pub(super) async fn read_body(&self, body: Body) -> Result<Bytes, ApiError> {
        let limits = &self.context.limits;
        body::read(body, limits.body_bytes, limits.body_timeout).await
    }
}

async fn entry(Shared(api): Shared<Arc<ApiServer>>, request: Request<Body>) -> Response<Body> {
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let (method, path) = (parts.method.clone(), parts.uri.path().to_owned());
    let (result, account) = api.answer(parts, body).await;
    let response = result.unwrap_or_else(|error| {
        if error.code.is_server_error() {
            tracing::warn!(%method, path, code = error.code.as_u16(), message = error.message, "request failed");
        }
        error.response()
    });
    let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::debug!(%method, path, code = response.status().as_u16(), account, elapsed_ms, "request");
    response
}

/// Only the admin has a role so far: whoever else has an account may ask who it is, and nothing more.
pub(super) fn require_admin(asked: &Asked, what: &str) -> Result<(), ApiError> {
    if asked.account == ADMIN_ACCOUNT {
        return Ok(());
    }
    let message = format!("{what} is forbidden: User {:?} has no role", asked.account);
    Err(ApiError::new(StatusCode::FORBIDDEN, "Forbidden", message))
}

fn authorize(asked: &Asked, target: &Target) -> Result<(), ApiError> {
    if asked.account == ADMIN_ACCOUNT {
        return Ok(());
    }
    let verb = match (&asked.method, &target.name) {
        (&Method::GET, _) if asked.query.flag("watch") => "watch",
        (&Method::GET, Some(_)) => "get",
        (&Method::GET, None) => "list",
        (&Method::POST, _) => "create",
        (&Method::PUT, _) => "update",
        (&Method::PATCH, _) => "patch",
        (&Method::DELETE, None) => "deletecollection",
        (&Method::DELETE, Some(_)) => "delete",
        _ => "use",
    };
    let name = target.name.as_deref().unwrap_or_default();
    Err(ApiError::forbidden(&asked.account, verb, target.kind.info(), target.namespace.as_deref(), name))
}

fn source(address: SocketAddr) -> String {
    address.ip().to_string()
}
