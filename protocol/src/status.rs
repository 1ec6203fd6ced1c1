//! The status vocabulary of Argo CD: sync, health, operation phase, and the report of one resource.

use serde::{Deserialize, Serialize, Serializer, ser::SerializeStruct as _};

use crate::manifest::ResourceKey;

/// Whether live state equals the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SyncStatus {
    /// Live equals target.
    Synced,
    /// Live differs from target.
    OutOfSync,
    /// Not yet compared, or the comparison failed.
    #[default]
    Unknown,
}

/// Health in worst-of order: a later variant is worse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum HealthStatus {
    /// Works.
    Healthy,
    /// Paused on purpose.
    Suspended,
    /// On its way; may still become Healthy.
    Progressing,
    /// Desired but not there.
    Missing,
    /// Failed, or did not become Healthy within its time.
    Degraded,
    /// Could not be assessed.
    #[default]
    Unknown,
}

/// Phase of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum OperationPhase {
    /// Under way.
    Running,
    /// Asked to stop.
    Terminating,
    /// A resource could not be applied or became Degraded.
    Failed,
    /// The operation itself could not run.
    Error,
    /// Done.
    Succeeded,
}

impl OperationPhase {
    /// Whether nothing more will happen in this operation.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Failed | Self::Error | Self::Succeeded)
    }
}

macro_rules! as_str {
    ($type:ident: $($variant:ident),+) => {
        impl $type {
            /// The name, as Argo CD writes it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant)),+ }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $type {
            type Err = UnknownName;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $(stringify!($variant) => Ok(Self::$variant),)+
                    other => Err(UnknownName { kind: stringify!($type), text: other.chars().take(64).collect() }),
                }
            }
        }
    };
}

as_str!(SyncStatus: Synced, OutOfSync, Unknown);
as_str!(HealthStatus: Healthy, Suspended, Progressing, Missing, Degraded, Unknown);
as_str!(OperationPhase: Running, Terminating, Failed, Error, Succeeded);

/// A text is not a name of this vocabulary.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {kind}")]
pub struct UnknownName {
    kind: &'static str,
    text: String,
}

/// Health of one object, with the reason in words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The verdict.
    pub status: HealthStatus,
    /// Why; empty when there is nothing to add.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

impl Health {
    /// A verdict with a reason.
    #[must_use]
    pub fn new(status: HealthStatus, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
}

/// One line of `status.resources[]`. Travels as JSON inside a detail blob.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceStatus {
    /// API group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// API version without the group.
    pub version: String,
    /// Kind.
    pub kind: String,
    /// Namespace; empty for cluster-scoped objects.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Compared with the target.
    pub status: SyncStatus,
    /// Health, for kinds that have a rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// Live but no longer desired.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub requires_pruning: bool,
    /// Runs as a hook, is not part of the comparison.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub hook: bool,
    /// Sync wave.
    #[serde(skip_serializing_if = "is_zero")]
    pub sync_wave: i64,
    /// What the last operation said about the object: the API server's own words on an error.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

impl ResourceStatus {
    /// The object that the line is about.
    #[must_use]
    pub fn key(&self) -> ResourceKey {
        ResourceKey {
            group: self.group.clone(),
            kind: self.kind.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde asks for")]
const fn is_zero(value: &i64) -> bool {
    *value == 0
}

/// A condition of an Application (`status.conditions[]`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// One of Argo CD's condition types.
    #[serde(rename = "type")]
    pub kind: String,
    /// What is wrong and what to do.
    pub message: String,
    /// RFC 3339; from `state.now`.
    #[serde(default)]
    pub last_transition_time: Option<String>,
}

impl Serialize for Condition {
    /// As JSON without a time that is not set; in binary records every field is there, or they could not be read back.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let timeless = serializer.is_human_readable() && self.last_transition_time.is_none();
        let mut fields = serializer.serialize_struct("Condition", if timeless { 2 } else { 3 })?;
        fields.serialize_field("type", &self.kind)?;
        fields.serialize_field("message", &self.message)?;
        if !timeless {
            fields.serialize_field("lastTransitionTime", &self.last_transition_time)?;
        }
        fields.end()
    }
}

impl Condition {
    /// A condition whose time is set when it enters the state.
    #[must_use]
    pub fn new(kind: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind: kind.into(), message: message.into(), last_transition_time: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read_back_from_text_and_from_records() {
        for condition in [
            Condition::new("SyncError", "why"),
            Condition { last_transition_time: Some("now".to_owned()), ..Condition::new("SyncError", "why") },
        ] {
            let text = serde_json::to_string(&condition).unwrap();
            assert_eq!(serde_json::from_str::<Condition>(&text).unwrap(), condition);
            let bytes = crate::codec::to_bytes(&condition, 1024).unwrap();
            assert_eq!(crate::codec::from_bytes::<Condition>(&bytes, 1024).unwrap(), condition);
        }
        assert_eq!(serde_json::to_value(Condition::new("a", "b")).unwrap().as_object().unwrap().len(), 2);
    }

    #[test]
    fn health_orders_from_best_to_worst() {
        let worst = [HealthStatus::Healthy, HealthStatus::Missing, HealthStatus::Progressing].into_iter().max();
        assert_eq!(worst, Some(HealthStatus::Missing));
        assert_eq!("Degraded".parse(), Ok(HealthStatus::Degraded));
        assert!("Fine".parse::<HealthStatus>().is_err());
    }
}
