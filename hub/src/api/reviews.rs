//! Questions about the asking account: `kubectl auth can-i` and `kubectl auth whoami`.

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::{accounts::ADMIN_ACCOUNT, answer, body, entry::Asked, error::ApiError, media, route::Review};

pub(super) fn answer(review: Review, asked: &Asked, bytes: &Bytes) -> Result<Response<Body>, ApiError> {
    if asked.method != Method::POST {
        return Err(ApiError::method_not_allowed());
    }
    // kubectl asks in protobuf and reads the answer as JSON; the answer depends on the account alone.
    let question = match media::content_type(&asked.headers) {
        "application/vnd.kubernetes.protobuf" => Value::Null,
        _ => body::optional_object(&asked.headers, bytes)?,
    };
    let spec = question.get("spec").cloned().unwrap_or_else(|| json!({}));
    let admin = asked.account == ADMIN_ACCOUNT;
    let everything = |admin: bool, rule: Value| if admin { json!([rule]) } else { json!([]) };
    let (version, kind, spec, status) = match review {
        Review::Access => {
            let status = json!({
                "allowed": admin,
                "reason": if admin { "the admin may do everything" } else { "the account has no role" },
            });
            ("authorization.k8s.io/v1", "SelfSubjectAccessReview", spec, status)
        }
        Review::Rules => {
            let status = json!({
                "resourceRules":
                    everything(admin, json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]})),
                "nonResourceRules": everything(admin, json!({"verbs": ["*"], "nonResourceURLs": ["*"]})),
                "incomplete": false,
            });
            ("authorization.k8s.io/v1", "SelfSubjectRulesReview", spec, status)
        }
        Review::Identity => {
            let status = json!({"userInfo": {"username": asked.account, "groups": ["system:authenticated"]}});
            ("authentication.k8s.io/v1", "SelfSubjectReview", Value::Null, status)
        }
    };
    let mut review = json!({
        "kind": kind, "apiVersion": version, "metadata": {"creationTimestamp": null}, "status": status,
    });
    if spec.is_object() {
        answer::put(&mut review, "spec", spec);
    }
    Ok(answer::json(StatusCode::CREATED, &review))
}
