//! From a stored record to what a client sees: Secrets get their data back, Applications their detail.

use std::{borrow::Cow, fmt, sync::Arc};

use serde_json::{Map, Value, json};
use windlass_hub_core::{ObjectKey, ObjectRecord, State};
use windlass_protocol::{json, resource::Kind};

use super::{error::ApiError, ports::Details};
use crate::sealing::Sealer;

/// Reads records of one state. Cheap to make; may read blobs, so long lists belong on a thread that may block.
#[derive(Clone)]
pub(super) struct View {
    pub(super) state: Arc<State>,
    pub(super) sealer: Arc<Sealer>,
    pub(super) details: Arc<dyn Details>,
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").finish_non_exhaustive()
    }
}

impl View {
    /// The object as JSON text; the stored text itself where nothing is to be added.
    pub(super) fn text<'a>(&self, key: &ObjectKey, record: &'a ObjectRecord) -> Result<Cow<'a, str>, ApiError> {
        let plain = match key.kind {
            Kind::Secret => record.sealed.is_none(),
            Kind::Application => self.detail_of(key, record).is_none(),
            Kind::Namespace => false,
            _ => true,
        };
        if plain {
            return Ok(Cow::Borrowed(&record.body));
        }
        self.value(key, record).map(|value| Cow::Owned(value.to_string()))
    }

    /// The object as JSON.
    pub(super) fn value(&self, key: &ObjectKey, record: &ObjectRecord) -> Result<Value, ApiError> {
        let mut value = record.value();
        match key.kind {
            Kind::Secret => self.open(&mut value, record)?,
            Kind::Application => {
                if let Some(detail) = self.detail_of(key, record).and_then(|digest| self.details.detail(&digest)) {
                    merge_detail(&mut value, detail);
                }
            }
            Kind::Namespace => {
                let phase = if record.deleting { "Terminating" } else { "Active" };
                json::set(&mut value, &["status", "phase"], json!(phase));
            }
            _ => {}
        }
        Ok(value)
    }

    /// The object as it is stored, with a Secret's data: what patches are computed on.
    pub(super) fn stored(&self, key: &ObjectKey, record: &ObjectRecord) -> Result<Value, ApiError> {
        let mut value = record.value();
        if key.kind == Kind::Secret {
            self.open(&mut value, record)?;
        }
        Ok(value)
    }

    fn open(&self, value: &mut Value, record: &ObjectRecord) -> Result<(), ApiError> {
        match &record.sealed {
            Some(sealed) => Ok(self.sealer.join_secret(value, sealed)?),
            None => Ok(()),
        }
    }

    fn detail_of(&self, key: &ObjectKey, record: &ObjectRecord) -> Option<windlass_protocol::ids::Digest> {
        let assignment = self.state.assignment(&key.name).filter(|assignment| assignment.uid == record.uid)?;
        assignment.receipt.as_ref()?.detail
    }
}

/// Puts what the agent reported beside what the hub knows.
fn merge_detail(value: &mut Value, mut detail: Value) {
    let mut take = |field: &str| match detail.get_mut(field).map(Value::take) {
        Some(Value::Array(list)) if !list.is_empty() => Some(list),
        _ => None,
    };
    if let Some(resources) = take("resources") {
        json::set(value, &["status", "resources"], Value::Array(resources));
    }
    if let Some(results) = take("syncResult")
        && json::at(value, &["status", "operationState", "syncResult"]).is_some()
    {
        json::set(value, &["status", "operationState", "syncResult", "resources"], Value::Array(results));
    }
    if let Some(theirs) = take("conditions") {
        let ours = json::at(value, &["status", "conditions"]).and_then(Value::as_array).cloned().unwrap_or_default();
        let known = |one: &Value| {
            let same = |field: &str, other: &Value| one.get(field) == other.get(field);
            ours.iter().any(|other| same("type", other) && same("message", other))
        };
        let new: Vec<Value> = theirs.into_iter().filter(|one| !known(one)).collect();
        let all: Vec<Value> = ours.iter().cloned().chain(new).collect();
        json::set(value, &["status", "conditions"], Value::Array(all));
    }
}

/// Takes out of a status what only ever comes from a detail, so that it is not stored twice.
pub(super) fn drop_detail(value: &mut Value) {
    json::remove(value, &["status", "resources"]);
    json::remove(value, &["status", "operationState", "syncResult", "resources"]);
}

/// `PartialObjectMetadata` of an object.
pub(super) fn partial(value: &mut Value) -> Value {
    let metadata = value.get_mut("metadata").map(Value::take).unwrap_or_default();
    let mut partial = Map::new();
    partial.insert("kind".to_owned(), json!("PartialObjectMetadata"));
    partial.insert("apiVersion".to_owned(), json!("meta.k8s.io/v1"));
    partial.insert("metadata".to_owned(), metadata);
    Value::Object(partial)
}

/// Replaces the values of a Secret by a mask, as Argo CD shows them.
pub(super) fn mask_secret(value: &mut Value) {
    if json::text(value, &["kind"]) != "Secret" || json::text(value, &["apiVersion"]) != "v1" {
        return;
    }
    for field in ["data", "stringData"] {
        if let Some(Value::Object(map)) = value.get_mut(field) {
            map.values_mut().for_each(|value| *value = json!(MASK));
        }
    }
    // kubectl's last-applied annotation holds the whole Secret.
    json::remove(value, &["metadata", "annotations", "kubectl.kubernetes.io/last-applied-configuration"]);
}

/// What stands for a value of a Secret.
const MASK: &str = "++++++++";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_stand_beside_the_hubs_own_conditions() {
        let own = json!({"type": "A", "message": "m", "lastTransitionTime": "t"});
        let mut value = json!({"status": {"conditions": [own], "operationState": {"syncResult": {"revision": "r"}}}});
        let detail = json!({
            "resources": [{"kind": "ConfigMap"}],
            "syncResult": [{"kind": "ConfigMap", "status": "Synced"}],
            "conditions": [{"type": "A", "message": "m"}, {"type": "B", "message": "n"}],
        });
        merge_detail(&mut value, detail);
        let expect = json!({"status": {
            "conditions": [own, {"type": "B", "message": "n"}],
            "operationState": {"syncResult": {"revision": "r", "resources": [{"kind": "ConfigMap", "status": "Synced"}]}},
            "resources": [{"kind": "ConfigMap"}],
        }});
        assert_eq!(value, expect);
    }

    #[test]
    fn secrets_are_masked() {
        let last = "kubectl.kubernetes.io/last-applied-configuration";
        let mut secret = json!({
            "apiVersion": "v1", "kind": "Secret", "data": {"a": "eA=="}, "metadata": {"annotations": {last: "x"}},
        });
        mask_secret(&mut secret);
        assert_eq!(
            secret,
            json!({
                "apiVersion": "v1", "kind": "Secret", "data": {"a": "++++++++"}, "metadata": {"annotations": {}},
            })
        );
    }
}
