//! What the hub offers beyond objects: join tokens of clusters, backups, rendered manifests, generators, webhooks.

use std::time::Duration;

use axum::body::Body;
use http::{HeaderValue, Method, Response, StatusCode, header, request::Parts};
use serde_json::{Value, json};
use windlass_hub_core::ObjectKey;
use windlass_protocol::{
    ids::NamespacedName,
    json,
    resource::{Kind, KindInfo},
};

use super::{
    answer, body,
    entry::{ApiServer, Asked, require_admin},
    error::ApiError,
    object::mask_secret,
};
use crate::source::webhook::MAX_BODY_BYTES;

/// How long a join token lives when nobody says.
const TOKEN_SECONDS: u64 = 3_600;
/// How long it may live.
const TOKEN_SECONDS_MAX: u64 = 7 * 86_400;

impl ApiServer {
    /// `POST .../clusters/NAME/token`
    pub(super) async fn join_token(
        &self,
        asked: &Asked,
        cluster: &str,
        body: Body,
    ) -> Result<Response<Body>, ApiError> {
        only(asked, &Method::POST)?;
        require_admin(asked, "clusters.windlass.io/token")?;
        let bytes = self.read_body(body).await?;
        let question = body::optional_object(&asked.headers, &bytes)?;
        let seconds = token_seconds(&question)?;
        let key = ObjectKey::new(Kind::Cluster, "", cluster);
        if self.context.replica.state().object(&key).is_none() {
            return Err(ApiError::not_found(&key));
        }
        let lifetime = Duration::from_secs(seconds);
        let token = self.context.admission.join_token(&asked.subject, cluster, lifetime).await?;
        let answer = json!({
            "apiVersion": "windlass.io/v1alpha1", "kind": "JoinToken", "metadata": {"name": cluster},
            "status": {
                "token": token.token, "expirationTimestamp": token.expires_at.rfc3339(),
                "rootPin": token.root_pin, "hubs": token.hubs,
            },
        });
        Ok(answer::json(StatusCode::CREATED, &answer))
    }

    /// `GET /apis/windlass.io/v1alpha1/hubbackup`
    pub(super) async fn hub_backup(&self, asked: &Asked) -> Result<Response<Body>, ApiError> {
        only(asked, &Method::GET)?;
        require_admin(asked, "hubbackup.windlass.io")?;
        // Everything acknowledged before the request is in it, or the answer says that it may not be.
        let (_, freshness) = self.read_state(None).await?;
        let backup = self.context.backups.backup().await?;
        tracing::info!(account = asked.account, source = asked.source, name = backup.name, "backup taken");
        let mut response = Response::new(Body::from_stream(backup.pieces));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        if let Ok(name) = HeaderValue::from_str(&format!("attachment; filename=\"{}\"", backup.name)) {
            headers.insert(header::CONTENT_DISPOSITION, name);
        }
        freshness.label(&mut response);
        Ok(response)
    }

    /// `GET .../applications/NAME/manifests`
    pub(super) async fn manifests(
        &self,
        asked: &Asked,
        namespace: &str,
        name: &str,
    ) -> Result<Response<Body>, ApiError> {
        only(asked, &Method::GET)?;
        require_admin(asked, "applications.argoproj.io/manifests")?;
        let key = ObjectKey::new(Kind::Application, namespace, name);
        if self.context.replica.state().object(&key).is_none() {
            return Err(ApiError::not_found(&key));
        }
        let mut items = self.context.manifests.manifests(&NamespacedName::new(namespace, name)).await?;
        items.iter_mut().for_each(mask_secret);
        let list = json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items});
        Ok(answer::json(StatusCode::OK, &list))
    }

    /// `POST .../applicationsets/generate`
    pub(super) async fn generate(
        &self,
        asked: &Asked,
        namespace: &str,
        body: Body,
    ) -> Result<Response<Body>, ApiError> {
        only(asked, &Method::POST)?;
        require_admin(asked, "applicationsets.argoproj.io/generate")?;
        let bytes = self.read_body(body).await?;
        let mut set = body::object(&asked.headers, &bytes)?.value;
        let info: &KindInfo = Kind::ApplicationSet.info();
        if json::text(&set, &["kind"]) != info.name {
            return Err(ApiError::bad_request("the body of the request is not an ApplicationSet"));
        }
        json::set(&mut set, &["metadata", "namespace"], json!(namespace));
        let items = self.context.generators.generate(namespace, set).await?;
        let list = json!({
            "apiVersion": info.api_version(), "kind": "ApplicationList", "metadata": {"resourceVersion": ""},
            "items": items,
        });
        Ok(answer::json(StatusCode::OK, &list))
    }

    /// `POST /api/webhook`
    pub(super) async fn webhook(&self, parts: Parts, body: Body) -> Result<Response<Body>, ApiError> {
        if parts.method != Method::POST {
            return Err(ApiError::method_not_allowed());
        }
        let _place = self
            .webhooks
            .try_acquire()
            .map_err(|_| ApiError::too_many_requests("too many deliveries at a time, please try again later"))?;
        let bytes = body::read(body, MAX_BODY_BYTES, self.context.limits.body_timeout).await?;
        let message = self.context.webhook.deliver(parts.headers, bytes).await?;
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "message": message, "code": 200,
        });
        Ok(answer::json(StatusCode::OK, &status))
    }
}

/// How long a token shall live.
pub(super) fn token_seconds(question: &Value) -> Result<u64, ApiError> {
    match json::at(question, &["spec", "expirationSeconds"]) {
        None | Some(Value::Null) => Ok(TOKEN_SECONDS),
        Some(value) => value.as_u64().filter(|seconds| (60..=TOKEN_SECONDS_MAX).contains(seconds)).ok_or_else(|| {
            let message = format!("spec.expirationSeconds: must be from 60 to {TOKEN_SECONDS_MAX}");
            ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message)
        }),
    }
}

pub(super) fn only(asked: &Asked, method: &Method) -> Result<(), ApiError> {
    if asked.method == *method { Ok(()) } else { Err(ApiError::method_not_allowed()) }
}
