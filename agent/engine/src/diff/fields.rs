//! `metadata.managedFields` of our own field manager: which fields we own, and what kind of list a list is.
//!
//! Format: FieldsV1 of structured-merge-diff: `f:<field>`, `k:<key fields as JSON>`, `v:<set element as JSON>`, `i:<index>`, `.`.

use serde_json::{Map, Value};
use windlass_protocol::manifest::FIELD_MANAGER;

/// A place in the set of fields that one manager owns; knows nothing where the manager owns nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Owned<'a>(Option<&'a Map<String, Value>>);

impl<'a> Owned<'a> {
    /// The place of a field below this one.
    pub(super) fn child(self, key: &str) -> Self {
        Self(self.0.and_then(|map| map.get(&format!("f:{key}"))).and_then(Value::as_object))
    }

    /// Names of the fields owned at or below this place.
    pub(super) fn keys(self) -> impl Iterator<Item = &'a str> {
        self.0.into_iter().flat_map(Map::keys).filter_map(|key| key.strip_prefix("f:"))
    }

    /// Whether the whole value here is owned, not parts of it.
    pub(super) fn is_leaf(self) -> bool {
        self.0.is_none_or(Map::is_empty)
    }

    /// The owned elements of a list map: their key fields, and the place below.
    pub(super) fn elements(self) -> impl Iterator<Item = (Map<String, Value>, Self)> {
        self.0.into_iter().flatten().filter_map(|(key, below)| {
            let key: Value = serde_json::from_str(key.strip_prefix("k:")?).ok()?;
            let Value::Object(key) = key else { return None };
            Some((key, Self(below.as_object())))
        })
    }

    /// The owned elements of a set.
    pub(super) fn members(self) -> impl Iterator<Item = Value> {
        self.0.into_iter().flat_map(Map::keys).filter_map(|key| serde_json::from_str(key.strip_prefix("v:")?).ok())
    }

    /// Whether anything is known here.
    pub(super) const fn is_known(self) -> bool {
        self.0.is_some()
    }
}

/// What our server-side apply owns of a live object.
pub(super) fn owned_by_us(live: &Value) -> Owned<'_> {
    Owned(entries(live).find(|entry| is_ours(entry)).and_then(fields))
}

/// The field sets of other managers by name, for `managedFieldsManagers`.
pub(super) fn owned_by<'a>(live: &'a Value, manager: &str) -> Vec<Owned<'a>> {
    let named = entries(live).filter(|entry| entry.get("manager").and_then(Value::as_str) == Some(manager));
    named.filter_map(fields).map(|map| Owned(Some(map))).collect()
}

/// Whether another manager than ours owns what a JSON pointer names.
pub(super) fn is_foreign(live: &Value, pointer: &str) -> bool {
    let steps: Vec<String> =
        pointer.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~")).collect();
    entries(live).filter(|entry| !is_ours(entry)).filter_map(fields).any(|map| {
        let mut place = Owned(Some(map));
        steps.iter().all(|step| {
            place = place.child(step);
            place.is_known()
        })
    })
}

fn entries(live: &Value) -> impl Iterator<Item = &Value> {
    let list = windlass_protocol::json::at(live, &["metadata", "managedFields"]).and_then(Value::as_array);
    list.into_iter().flatten()
}

fn is_ours(entry: &Value) -> bool {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
    text("manager") == FIELD_MANAGER && text("operation") == "Apply" && text("subresource").is_empty()
}

fn fields(entry: &Value) -> Option<&Map<String, Value>> {
    entry.get("fieldsV1")?.as_object()
}
