//! Where a resource came from, and what changed it, for `buildMetadata`.

use serde_json::Value;
use windlass_protocol::yaml;

/// A file, or a generator or transformer configured in one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) path: String,
    pub(super) configured_in: String,
    pub(super) configured_by: Option<ConfiguredBy>,
}

/// The generator or transformer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ConfiguredBy {
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) namespace: String,
}

impl Origin {
    /// The origin of something below `path`.
    pub(super) fn append(&self, path: &str) -> Self {
        Self { path: clean_join(&self.path, path), ..Self::default() }
    }

    /// A built-in transformer or generator of the kustomization file `file` in this directory.
    pub(super) fn built_in(&self, file: &str, kind: &str) -> Self {
        Self {
            path: String::new(),
            configured_in: clean_join(&self.path, file),
            configured_by: Some(ConfiguredBy {
                api_version: "builtin".to_owned(),
                kind: kind.to_owned(),
                ..ConfiguredBy::default()
            }),
        }
    }

    /// The text of the origin annotation.
    pub(super) fn to_yaml(&self) -> String {
        self.lines().iter().map(|line| format!("{line}\n")).collect()
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        push_field(&mut lines, "", "path", &self.path);
        push_field(&mut lines, "", "configuredIn", &self.configured_in);
        if let Some(by) = &self.configured_by {
            lines.push("configuredBy:".to_owned());
            push_field(&mut lines, "  ", "apiVersion", &by.api_version);
            push_field(&mut lines, "  ", "kind", &by.kind);
            push_field(&mut lines, "  ", "name", &by.name);
            push_field(&mut lines, "  ", "namespace", &by.namespace);
        }
        lines
    }
}

fn push_field(lines: &mut Vec<String>, indent: &str, name: &str, value: &str) {
    if !value.is_empty() {
        let text = yaml::to_yaml(&Value::String(value.to_owned()));
        lines.push(format!("{indent}{name}: {}", text.trim_end()));
    }
}

/// The text of the transformations annotation.
pub(super) fn transformations_yaml(all: &[Origin]) -> String {
    let mut text = String::new();
    for origin in all {
        for (index, line) in origin.lines().iter().enumerate() {
            text.push_str(if index == 0 { "- " } else { "  " });
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// Joins two paths and cleans them; leading `..` stay.
fn clean_join(base: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in base.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            other => parts.push(other),
        }
    }
    parts.join("/")
}
