//! Which tool a source is for, and the files in the repository that override a source.

use serde_json::Value;
use windlass_protocol::{resource::ApplicationSource, yaml};

use crate::{
    error::{Problem, ProblemKind},
    kustomize::file::FILE_NAMES,
    path,
    reader::Reader,
};

/// The tools a source may be for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceType {
    /// Plain manifests.
    Directory,
    /// A kustomization.
    Kustomize,
    /// A chart.
    Helm,
    /// A config management plugin.
    Plugin,
}

impl SourceType {
    /// The name Argo CD shows in `status.sourceType`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Directory => "Directory",
            Self::Kustomize => "Kustomize",
            Self::Helm => "Helm",
            Self::Plugin => "Plugin",
        }
    }
}

/// The type a source names, or else the one its files show.
pub(crate) fn source_type(
    reader: &mut Reader<'_>,
    root: &str,
    source: &ApplicationSource,
) -> Result<SourceType, Problem> {
    if !source.chart.is_empty() {
        return Ok(SourceType::Helm);
    }
    let named = [
        (SourceType::Kustomize, source.kustomize.is_some()),
        (SourceType::Helm, source.helm.is_some()),
        (SourceType::Directory, source.directory.is_some()),
        (SourceType::Plugin, source.plugin.is_some()),
    ];
    let mut named = named.into_iter().filter(|(_, is_named)| *is_named).map(|(kind, _)| kind);
    match (named.next(), named.next()) {
        (Some(only), None) => return Ok(only),
        (Some(first), Some(second)) => {
            let message = format!("multiple application sources defined: {},{}", first.name(), second.name());
            return Err(Problem::field(message).in_field("spec.source"));
        }
        (None, _) => {}
    }
    if reader.file(&path::join(root, "Chart.yaml")?)?.is_some() {
        return Ok(SourceType::Helm);
    }
    for name in FILE_NAMES {
        if reader.file(&path::join(root, name)?)?.is_some() {
            return Ok(SourceType::Kustomize);
        }
    }
    Ok(SourceType::Directory)
}

/// The source with `.argocd-source.yaml` and then `.argocd-source-<app>.yaml` of its directory merged over it. Where
/// it comes from (repository, revision, path, chart) cannot be overridden.
pub(crate) fn overridden(
    reader: &mut Reader<'_>,
    root: &str,
    source: &ApplicationSource,
    app_name: &str,
) -> Result<ApplicationSource, Problem> {
    let mut names = vec![".argocd-source.yaml".to_owned()];
    if !app_name.is_empty() && !app_name.contains('/') {
        names.push(format!(".argocd-source-{app_name}.yaml"));
    }
    let mut merged = source.clone();
    for name in names {
        let file = path::join(root, &name)?;
        let Some(content) = reader.file(&file)? else { continue };
        let documents =
            yaml::values(&content, &yaml::Options::default()).map_err(|error| Problem::from_yaml(&file, &error))?;
        let Some(patch) = documents.into_iter().next() else { continue };
        let refuse = |error: serde_json::Error| Problem::new(ProblemKind::Field, error.to_string()).in_file(&file);
        let mut value = serde_json::to_value(&merged).map_err(refuse)?;
        merge_patch(&mut value, patch.value);
        merged = serde_json::from_value(value).map_err(refuse)?;
    }
    merged.repo_url.clone_from(&source.repo_url);
    merged.path.clone_from(&source.path);
    merged.target_revision.clone_from(&source.target_revision);
    merged.chart.clone_from(&source.chart);
    Ok(merged)
}

/// RFC 7396.
fn merge_patch(target: &mut Value, patch: Value) {
    match patch {
        Value::Object(patch) => {
            if !target.is_object() {
                *target = Value::Object(serde_json::Map::new());
            }
            let Value::Object(map) = target else { return };
            for (key, value) in patch {
                if value.is_null() {
                    map.remove(&key);
                } else {
                    merge_patch(map.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        other => *target = other,
    }
}
