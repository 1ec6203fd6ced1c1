//! Generic conditions of kinds without a rule (COMPAT decision 15): `Stalled` and `Failed` are bad, `Ready` says the rest.

use serde_json::Value;
use windlass_protocol::{
    json::{self, text},
    status::Health,
};

use super::{condition, degraded, healthy, number, progressing};

/// The verdict of the conditions; `None` where they say nothing.
pub(super) fn generic(object: &Value) -> Option<Health> {
    for kind in ["Stalled", "Failed"] {
        if let Some(bad) = condition(object, kind).filter(|it| text(it, &["status"]) == "True") {
            return Some(degraded(words(bad)));
        }
    }
    let generation = number(object, &["metadata", "generation"]);
    let behind = |place: Option<&Value>| place.and_then(Value::as_i64).is_some_and(|seen| seen < generation);
    let ready = condition(object, "Ready")?;
    if behind(json::at(object, &["status", "observedGeneration"])) || behind(ready.get("observedGeneration")) {
        return Some(progressing("Waiting for the newest generation to be observed"));
    }
    Some(if text(ready, &["status"]) == "True" { healthy(words(ready)) } else { progressing(words(ready)) })
}

fn words(condition: &Value) -> String {
    let message = text(condition, &["message"]);
    if message.is_empty() { text(condition, &["reason"]).to_owned() } else { message.to_owned() }
}
