//! Sync options: on the application, on the operation, and on the object, where the object wins.

use serde_json::Value;
use windlass_protocol::manifest;

/// Annotation with options of one object.
pub const OPTIONS_ANNOTATION: &str = "argocd.argoproj.io/sync-options";

/// The options of a sync.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncOptions {
    entries: Vec<(String, String)>,
}

impl SyncOptions {
    /// From the application's and the operation's options; the operation wins.
    #[must_use]
    pub fn new<'a>(options: impl IntoIterator<Item = &'a String>) -> Self {
        let entries = options.into_iter().filter_map(|option| split(option)).map(owned).collect();
        Self { entries }
    }

    /// The value of an option without regard to an object.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        self.entries.iter().rev().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    /// The value of an option for an object.
    #[must_use]
    pub fn value_for<'a>(&'a self, object: &'a Value, name: &str) -> Option<&'a str> {
        on_object(object, name).or_else(|| self.value(name))
    }

    /// Whether an option is set to this value for an object.
    #[must_use]
    pub fn is(&self, object: &Value, name: &str, value: &str) -> bool {
        self.value_for(object, name) == Some(value)
    }
}

/// The value of an option that the object itself carries.
#[must_use]
pub fn on_object<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    let list = manifest::annotation(object, OPTIONS_ANNOTATION)?;
    list.split(',').filter_map(split).filter(|(known, _)| *known == name).map(|(_, value)| value).next_back()
}

fn split(option: &str) -> Option<(&str, &str)> {
    let (name, value) = option.split_once('=')?;
    Some((name.trim(), value.trim()))
}

fn owned((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_object_wins() {
        let options = SyncOptions::new(&["Prune=false".to_owned(), "Replace=true".to_owned()]);
        let plain = json!({});
        let own = json!({"metadata": {"annotations": {OPTIONS_ANNOTATION: "Prune=true, Validate=false"}}});
        assert!(options.is(&plain, "Prune", "false") && options.is(&own, "Prune", "true"));
        assert!(options.is(&own, "Validate", "false") && options.is(&own, "Replace", "true"));
    }
}
