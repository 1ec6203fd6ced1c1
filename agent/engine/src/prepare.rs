//! The manifest as it is sent: normalised, with tracking annotation and owner label on the object itself (never in templates).

use serde_json::Value;
use windlass_protocol::{
    ids::Digest,
    json,
    manifest::{OWNER_LABEL, ResourceKey, TRACKING_ANNOTATION},
};

use crate::normalize;

/// The object to apply for a desired manifest.
#[must_use]
pub fn prepare(manifest: &Value, key: &ResourceKey, tracking_name: &str) -> Value {
    let mut object = normalize::desired(manifest);
    let tracking = key.tracking_id(tracking_name);
    json::set(&mut object, &["metadata", "annotations", TRACKING_ANNOTATION], Value::from(tracking));
    json::set(&mut object, &["metadata", "labels", OWNER_LABEL], Value::from(owner_label(tracking_name)));
    object
}

/// The value of the owner label for an application: its tracking name where that is a valid label value, else a readable part of
/// it with a digest.
#[must_use]
pub fn owner_label(tracking_name: &str) -> String {
    let alphanumeric = |character: Option<char>| character.is_some_and(|character| character.is_ascii_alphanumeric());
    let allowed = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.');
    let valid = tracking_name.len() <= LABEL_MAX
        && tracking_name.chars().all(allowed)
        && alphanumeric(tracking_name.chars().next())
        && alphanumeric(tracking_name.chars().next_back());
    if valid {
        return tracking_name.to_owned();
    }
    let readable: String = tracking_name.chars().filter(|character| allowed(*character)).take(READABLE).collect();
    let readable = readable.trim_start_matches(|character: char| !character.is_ascii_alphanumeric());
    let digest = Digest::of(tracking_name.as_bytes()).short();
    if readable.is_empty() { digest } else { format!("{readable}-{digest}") }
}

/// Characters of a label value.
const LABEL_MAX: usize = 63;
/// 50 characters, a dash and 12 digits make 63.
const READABLE: usize = 50;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn owner_labels_are_valid() {
        assert_eq!(owner_label("shop"), "shop");
        assert_eq!(owner_label("team_shop"), "team_shop");
        for name in ["x".repeat(200), "-shop".to_owned(), "sh:op".to_owned(), "---".to_owned()] {
            let label = owner_label(&name);
            assert!(
                label.len() <= LABEL_MAX && label.chars().next().is_some_and(|c| c.is_ascii_alphanumeric()),
                "{label}"
            );
        }
    }

    #[test]
    fn templates_stay_as_they_are() {
        let manifest = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "n"},
            "spec": {"template": {"metadata": {"labels": {"app": "web"}}}}});
        let object = prepare(&manifest, &ResourceKey::of(&manifest), "shop");
        assert_eq!(object["metadata"]["annotations"][TRACKING_ANNOTATION], "shop:apps/Deployment:n/web");
        assert_eq!(object["metadata"]["labels"][OWNER_LABEL], "shop");
        assert_eq!(object["spec"]["template"], manifest["spec"]["template"]);
    }
}
