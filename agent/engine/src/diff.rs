//! Is a live object as its manifest says? With the semantics of server-side apply: what the manifest sets must be there; what
//! others own, or the API server defaults, is no difference; what we own but no longer set is one.
//!
//! Without a schema some answers are approximations in favour of the common case. [`compare`] is exact when the shell supplies
//! what a dry run of the apply predicts; and what the API server made of a manifest when it was applied is remembered
//! ([`crate::resume::Baseline`]) and is no difference later. Values never leave this module, only pointers and digests.

mod fields;
mod ignore;
mod lists;

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use windlass_protocol::{ids::Digest, manifest};

pub use self::ignore::{IgnoreRules, Ignored};
pub(crate) use self::lists::list_keys;
use crate::{
    normalize::{self, DEPTH_MAX},
    quantity,
};
use fields::Owned;

/// What differs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// JSON pointer into the manifest (for fields to remove: into the live object) to digest of the live value there.
    pub fields: BTreeMap<String, Digest>,
    /// There are more than were kept.
    pub truncated: bool,
}

impl Difference {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Without what the API server is known to make of this manifest.
    #[must_use]
    pub fn without(mut self, known: &BTreeMap<String, Digest>) -> Self {
        if !self.truncated {
            self.fields.retain(|pointer, digest| known.get(pointer) != Some(digest));
        }
        self
    }

    /// The pointers in words, for a message; no values.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = self.fields.keys().cloned().collect::<Vec<_>>().join(", ");
        if self.truncated {
            text.push_str(", ...");
        }
        text
    }
}

/// Compares a desired manifest (normalised) with a live object, after ignored fields were taken from both.
///
/// `predicted` is what a dry run of the apply returned; with it the comparison is exact. At most `max` differences are kept.
#[must_use]
pub fn compare(desired: &Value, live: &Value, predicted: Option<&Value>, max: usize) -> Difference {
    let mut walk =
        Walk { path: Vec::new(), found: Difference::default(), max: max.max(1), secret: manifest::is_secret(live) };
    if let Some(predicted) = predicted {
        walk.exact(&normalize::stable(predicted), &normalize::stable(live));
        return walk.found;
    }
    let owned = fields::owned_by_us(live);
    let (Value::Object(desired_map), Value::Object(live_map)) = (desired, live) else {
        walk.note(Some(live));
        return walk.found;
    };
    for (key, value) in desired_map {
        // The group is part of the key that paired them; the version is the API server's business.
        if key == "apiVersion" || key == "kind" || (key == "rules" && is_aggregated(desired)) {
            continue;
        }
        walk.under(Step::Key(key), |walk| walk.field(key, Some(value), live_map.get(key), owned.child(key), 0));
    }
    walk.removed(desired_map, live_map, owned, 0);
    walk.found
}

/// A ClusterRole whose rules a controller fills in.
fn is_aggregated(desired: &Value) -> bool {
    manifest::kind(desired) == "ClusterRole" && desired.get("aggregationRule").is_some()
}

/// A step of a path.
#[derive(Clone, Debug)]
enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

/// The walk over both objects.
#[derive(Debug)]
struct Walk<'a> {
    path: Vec<Step<'a>>,
    found: Difference,
    max: usize,
    secret: bool,
}

impl<'a> Walk<'a> {
    fn under(&mut self, step: Step<'a>, visit: impl FnOnce(&mut Self)) {
        self.path.push(step);
        visit(self);
        self.path.pop();
    }

    /// Notes a difference at the current path.
    fn note(&mut self, live: Option<&Value>) {
        if self.found.fields.len() >= self.max {
            self.found.truncated = true;
            return;
        }
        let digest = Digest::of(&live.map(manifest::canonical).unwrap_or_default());
        self.found.fields.insert(self.pointer(), digest);
    }

    fn pointer(&self) -> String {
        let mut pointer = String::new();
        for step in &self.path {
            pointer.push('/');
            match step {
                Step::Key(key) => pointer.push_str(&key.replace('~', "~0").replace('/', "~1")),
                Step::Index(index) => pointer.push_str(&index.to_string()),
            }
        }
        pointer
    }

    fn parent_key(&self, back: usize) -> &'a str {
        let keys = self.path.iter().rev().filter_map(|step| match step {
            Step::Key(key) => Some(*key),
            Step::Index(_) => None,
        });
        keys.into_iter().nth(back).unwrap_or_default()
    }

    /// One desired field against its live counterpart.
    fn field(
        &mut self,
        key: &'a str,
        desired: Option<&'a Value>,
        live: Option<&'a Value>,
        owned: Owned<'a>,
        depth: usize,
    ) {
        let Some(desired) = desired else { return };
        if depth > DEPTH_MAX {
            if live != Some(desired) {
                self.note(live);
            }
            return;
        }
        match (desired, live) {
            (_, None | Some(Value::Null)) => {
                let text_map = STRING_MAPS.contains(&self.parent_key(1));
                if text_map || !is_unset(key, desired) {
                    self.note(live);
                }
            }
            (Value::Object(desired), Some(Value::Object(live))) => self.object(desired, live, owned, depth),
            (Value::Array(desired), Some(Value::Array(live))) => self.list(key, desired, live, owned, depth),
            (desired, Some(live)) => {
                if !self.same_scalar(desired, live) {
                    self.note(Some(live));
                }
            }
        }
    }

    fn object(
        &mut self,
        desired: &'a Map<String, Value>,
        live: &'a Map<String, Value>,
        owned: Owned<'a>,
        depth: usize,
    ) {
        for (key, value) in desired {
            let child = owned.child(key);
            self.under(Step::Key(key), |walk| walk.field(key, Some(value), live.get(key), child, depth + 1));
        }
        self.removed(desired, live, owned, depth);
    }

    /// Live fields that we own but no longer set.
    fn removed(
        &mut self,
        desired: &'a Map<String, Value>,
        live: &'a Map<String, Value>,
        owned: Owned<'a>,
        depth: usize,
    ) {
        if depth > DEPTH_MAX {
            return;
        }
        for key in owned.keys() {
            if desired.contains_key(key) || self.is_ours_by_design(key) {
                continue;
            }
            let Some(value) = live.get(key).filter(|value| !is_unset(key, value)) else { continue };
            let child = owned.child(key);
            self.under(Step::Key(key), |walk| walk.leftover(value, child, depth + 1));
        }
    }

    /// What prepare adds is ours without standing in the manifest.
    fn is_ours_by_design(&self, key: &str) -> bool {
        (key == manifest::TRACKING_ANNOTATION || key == manifest::OWNER_LABEL || key == crate::hook::RUN_ANNOTATION)
            && self.path.len() == 2
    }

    /// A live value that we own and the manifest has not: only the owned leaves below it are ours to remove.
    fn leftover(&mut self, live: &'a Value, owned: Owned<'a>, depth: usize) {
        match live {
            Value::Object(map) if !owned.is_leaf() && depth <= DEPTH_MAX => {
                for key in owned.keys() {
                    let Some(value) = map.get(key).filter(|value| !is_unset(key, value)) else { continue };
                    if self.is_ours_by_design(key) {
                        continue;
                    }
                    let child = owned.child(key);
                    self.under(Step::Key(key), |walk| walk.leftover(value, child, depth + 1));
                }
            }
            _ => self.note(Some(live)),
        }
    }

    fn same_scalar(&self, desired: &Value, live: &Value) -> bool {
        if desired == live {
            return true;
        }
        if let (Value::Number(desired), Value::Number(live)) = (desired, live) {
            return same_number(desired, live);
        }
        if self.secret && matches!(self.path.first(), Some(Step::Key("data"))) {
            if let (Some(desired), Some(live)) = (desired.as_str(), live.as_str()) {
                let bytes = normalize::base64_bytes(desired);
                return bytes.is_some() && bytes == normalize::base64_bytes(live);
            }
            return false;
        }
        self.is_quantity() && quantity::equal(desired, live)
    }

    /// Whether the current path is where Kubernetes' types have quantities.
    fn is_quantity(&self) -> bool {
        let free = matches!(self.path.first(), Some(Step::Key("metadata" | "data" | "stringData" | "binaryData")));
        !free && (QUANTITY_MAPS.contains(&self.parent_key(1)) || QUANTITY_FIELDS.contains(&self.parent_key(0)))
    }

    /// Strict comparison of two objects, for predicted results.
    fn exact(&mut self, predicted: &Value, live: &Value) {
        let mut pointers = Vec::new();
        exact(predicted, live, &mut String::new(), &mut pointers, self.max + 1);
        for (pointer, live) in pointers {
            if self.found.fields.len() >= self.max {
                self.found.truncated = true;
                break;
            }
            self.found.fields.insert(pointer, live);
        }
    }
}

fn exact(predicted: &Value, live: &Value, path: &mut String, found: &mut Vec<(String, Digest)>, max: usize) {
    if predicted == live || found.len() >= max {
        return;
    }
    let length = path.len();
    let mut deeper = |step: &str, predicted: &Value, live: &Value, path: &mut String| {
        path.push('/');
        path.push_str(&step.replace('~', "~0").replace('/', "~1"));
        exact(predicted, live, path, found, max);
        path.truncate(length);
    };
    match (predicted, live) {
        (Value::Object(left), Value::Object(right)) if length < POINTER_MAX => {
            let missing = right.keys().filter(|key| !left.contains_key(*key));
            for key in left.keys().chain(missing) {
                let (left, right) = (left.get(key).unwrap_or(&Value::Null), right.get(key).unwrap_or(&Value::Null));
                deeper(key, left, right, path);
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() && length < POINTER_MAX => {
            for (index, (left, right)) in left.iter().zip(right).enumerate() {
                deeper(&index.to_string(), left, right, path);
            }
        }
        (_, live) => found.push((path.clone(), Digest::of(&manifest::canonical(live)))),
    }
}

/// Bytes of a pointer beyond which a comparison goes no deeper.
const POINTER_MAX: usize = 4096;

/// A value that typed API objects drop when they are stored: empty, zero, false. Maps of texts keep their empty texts.
fn is_unset(key: &str, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) if STRING_MAPS.contains(&key) => map.is_empty(),
        Value::Object(map) => {
            map.iter().all(|(key, value)| is_unset(key, value) && !value.is_boolean() && !value.is_number())
        }
    }
}

fn same_number(left: &serde_json::Number, right: &serde_json::Number) -> bool {
    left == right || left.as_f64().zip(right.as_f64()).is_some_and(|(left, right)| left == right)
}

/// Maps with keys of the user's choice, where an empty text is a value.
const STRING_MAPS: [&str; 8] =
    ["labels", "annotations", "data", "binaryData", "matchLabels", "nodeSelector", "selector", "parameters"];
/// Maps whose values are quantities.
const QUANTITY_MAPS: [&str; 12] = [
    "limits",
    "requests",
    "hard",
    "capacity",
    "default",
    "defaultRequest",
    "max",
    "min",
    "maxLimitRequestRatio",
    "podFixed",
    "allocatable",
    "allocatedResources",
];
/// Fields that are quantities.
const QUANTITY_FIELDS: [&str; 6] =
    ["sizeLimit", "averageValue", "value", "divisor", "targetAverageValue", "targetValue"];

#[cfg(test)]
mod tests;
