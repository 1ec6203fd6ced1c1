//! Replacing the root of the trust domain: begin and finish. The hubs follow the state that results.

use axum::body::Body;
use http::{Method, Response, StatusCode};
use serde_json::{Value, json};
use windlass_hub_core::{Command, state::TrustRecord};
use windlass_protocol::json;
use windlass_transport::identity::{RootPin, TrustBundle};

use super::{
    answer, body,
    entry::{ApiServer, Asked, require_admin},
    error::ApiError,
    extras::only,
    route::Rotation,
};
use crate::{
    replica::wall_clock,
    trust::{self, RotationError},
};

impl ApiServer {
    /// `POST .../hubtrust/rotate` and `.../hubtrust/finish`
    pub(super) async fn hub_trust(
        &self,
        asked: &Asked,
        step: Rotation,
        body: Body,
    ) -> Result<Response<Body>, ApiError> {
        only(asked, &Method::POST)?;
        require_admin(asked, "hubtrust.windlass.io")?;
        let bytes = self.read_body(body).await?;
        let question = body::optional_object(&asked.headers, &bytes)?;
        let replica = &self.context.replica;
        replica.read_barrier().await.map_err(|error| ApiError::unavailable(error.to_string()))?;
        let state = replica.state();
        let record = match step {
            Rotation::Begin => {
                let serials = [random(replica.random_bytes()?), random(replica.random_bytes()?)];
                let mut serials = serials.into_iter();
                trust::begin(state.trust(), &self.context.sealer, wall_clock(), || serials.next().unwrap_or(1))
            }
            Rotation::Finish => {
                let forced = json::at(&question, &["spec", "force"]).and_then(Value::as_bool).unwrap_or_default();
                let (names, count) = trust::unready(&state).map_err(refused)?;
                if count > 0 && !forced && trust::is_rotating(state.trust()) {
                    return Err(conflict(format!(
                        "{count} connected agents do not have the new root, or no certificate below it, yet: {}; wait until they have renewed, or use --force: they are then cut off and renew when they come back",
                        names.join(", ")
                    )));
                }
                trust::finish(state.trust())
            }
        };
        let record = record.map_err(refused)?;
        let command = Command::SetTrust { trust: record.clone() };
        replica.propose(&asked.subject, &asked.source, Vec::new(), command).await?;
        Ok(answer::json(StatusCode::OK, &describe(&record)))
    }
}

fn describe(record: &TrustRecord) -> Value {
    let pins = TrustBundle::from_pem(&record.roots).and_then(|bundle| bundle.pins()).unwrap_or_default();
    let pins: Vec<String> = pins.iter().map(RootPin::to_string).collect();
    json!({
        "apiVersion": "windlass.io/v1alpha1", "kind": "HubTrust", "metadata": {},
        "status": {
            "version": record.version, "roots": record.roots, "rootPins": pins,
            "rotating": trust::is_rotating(record),
        },
    })
}

fn random(bytes: [u8; 16]) -> u128 {
    (u128::from_be_bytes(bytes) >> 1) | 1
}

fn refused(error: RotationError) -> ApiError {
    match error {
        RotationError::UnderWay | RotationError::NotUnderWay | RotationError::NoRoot => conflict(error.to_string()),
        RotationError::Trust(error) => ApiError::internal(error.to_string()),
    }
}

fn conflict(message: String) -> ApiError {
    ApiError::new(StatusCode::CONFLICT, "Conflict", message)
}
