//! `source.kustomize`: changes to the root kustomization with the meaning of the `kustomize edit` commands Argo CD runs.

use std::collections::BTreeMap;

use serde_json::Value;
use windlass_protocol::resource::{
    ApplicationSource, KustomizePatch, KustomizeReplica, KustomizeSelector, KustomizeSource,
};

use crate::{
    environment::BuildEnvironment,
    error::Problem,
    kustomize::{
        KustomizeFlags, LoadRestrictions, Reorder,
        file::{Image, Kustomization, Label, Patch, PatchOptions, Replica, Selector},
        id::{Gvk, ResourceId},
    },
    path,
    reader::Reader,
};

/// Keeps the value of the kustomization.
const KEEP: &str = "*";

/// Applies the overrides in the order in which Argo CD runs the commands.
pub(crate) fn apply(
    kustomization: &mut Kustomization,
    overrides: &KustomizeSource,
    source: &ApplicationSource,
    environment: &BuildEnvironment,
    reader: &mut Reader<'_>,
    root: &str,
) -> Result<(), Problem> {
    if !overrides.name_prefix.is_empty() {
        kustomization.name_prefix.clone_from(&overrides.name_prefix);
    }
    if !overrides.name_suffix.is_empty() {
        kustomization.name_suffix.clone_from(&overrides.name_suffix);
    }
    let images = overrides.images.iter().map(|image| environment.expand(image, source));
    set_images(kustomization, images)?;
    set_replicas(kustomization, &overrides.replicas)?;
    let labels = overrides.common_labels.iter().map(|(key, value)| (key, environment.expand(value, source)));
    add_labels(kustomization, overrides, labels.collect(), reader)?;
    let expand = |value: &String| {
        if overrides.common_annotations_envsubst { environment.expand(value, source) } else { value.clone() }
    };
    for (key, value) in &overrides.common_annotations {
        let forced = overrides.force_common_annotations;
        add(&mut kustomization.common_annotations, "commonAnnotations", key, expand(value), forced, reader);
    }
    if !overrides.namespace.is_empty() {
        kustomization.namespace.clone_from(&overrides.namespace);
    }
    kustomization.patches.extend(overrides.patches.iter().map(patch));
    for component in &overrides.components {
        let missing = !reader.is_directory(&path::join(root, component)?)?;
        if (missing && overrides.ignore_missing_components) || kustomization.components.contains(component) {
            continue;
        }
        kustomization.components.push(component.clone());
    }
    Ok(())
}

/// The flags that build options ask for; what is not done is said in a warning.
pub(crate) fn flags(
    overrides: Option<&KustomizeSource>,
    environment: &BuildEnvironment,
    warnings: &mut Vec<String>,
) -> KustomizeFlags {
    let mut flags = KustomizeFlags::default();
    let own = overrides.map_or("", |overrides| overrides.build_options.as_str());
    // What the hub is configured with is trusted; what a source asks for must be allowed.
    for (text, trusted) in
        [(environment.kustomize_build_options.as_str(), true), (own, environment.allow_load_restrictions_none)]
    {
        let mut words = text.split_whitespace().flat_map(|word| word.splitn(2, '=')).peekable();
        while let Some(word) = words.next() {
            match word.replace('_', "-").as_str() {
                "--load-restrictor" => match words.next() {
                    Some("LoadRestrictionsNone" | "none") if trusted => flags.load_restrictions = LoadRestrictions::None,
                    Some("LoadRestrictionsNone" | "none") => warnings.push(
                        "kustomize.buildOptions: --load-restrictor=LoadRestrictionsNone is ignored; the hub's configuration does not allow it".to_owned(),
                    ),
                    _ => {}
                },
                "--reorder" => match words.next() {
                    Some("none") => flags.reorder = Reorder::None,
                    _ => flags.reorder = Reorder::Legacy,
                },
                "--enable-managedby-label" => flags.managed_by_label = true,
                "--enable-alpha-plugins" | "--enable-exec" | "--enable-star" | "--network" => {
                    warnings.push(format!("kustomize.buildOptions: {word} is ignored; programs and containers are never run"));
                }
                other => warnings.push(format!("kustomize.buildOptions: {other} is ignored")),
            }
        }
    }
    flags
}

/// `kustomize edit set image`: entries of the same name are replaced, and all are sorted.
fn set_images(kustomization: &mut Kustomization, arguments: impl Iterator<Item = String>) -> Result<(), Problem> {
    let mut images: BTreeMap<String, Image> = BTreeMap::new();
    for argument in arguments {
        let image = parse_image(&argument)?;
        images.insert(image.name.clone(), image);
    }
    if images.is_empty() {
        return Ok(());
    }
    for known in std::mem::take(&mut kustomization.images) {
        match images.get_mut(&known.name) {
            None => {
                images.insert(known.name.clone(), known);
            }
            Some(image) => {
                for (mine, theirs) in [
                    (&mut image.new_name, known.new_name),
                    (&mut image.new_tag, known.new_tag),
                    (&mut image.digest, known.digest),
                ] {
                    if mine == KEEP {
                        *mine = theirs;
                    }
                }
            }
        }
    }
    for image in images.values_mut() {
        for part in [&mut image.new_name, &mut image.new_tag, &mut image.digest] {
            if part == KEEP {
                part.clear();
            }
        }
    }
    kustomization.images = images.into_values().collect();
    Ok(())
}

/// `[old=]name[:tag|@digest]`
fn parse_image(argument: &str) -> Result<Image, Problem> {
    let (old, value) = match argument.split_once('=') {
        Some((old, value)) => (Some(old), value),
        None => (None, argument),
    };
    let (name, tag, digest) = crate::kustomize::split_image(value);
    if name == argument {
        let message = format!(
            "invalid format of image '{argument}', use one of the following options: <image>=<newimage>:<newtag>, <image>=<newimage>@<digest>, <image>=<newimage>, <image>:<newtag>, <image>@<digest>"
        );
        return Err(Problem::field(message).in_field("kustomize.images"));
    }
    let mut image = Image { new_tag: tag.to_owned(), digest: digest.to_owned(), ..Image::default() };
    match old {
        None => image.name = name.to_owned(),
        Some(old) => {
            image.name = old.to_owned();
            image.new_name = name.to_owned();
        }
    }
    Ok(image)
}

/// `kustomize edit set replicas`
fn set_replicas(kustomization: &mut Kustomization, overrides: &[KustomizeReplica]) -> Result<(), Problem> {
    if overrides.is_empty() {
        return Ok(());
    }
    let mut replicas: BTreeMap<String, Replica> =
        kustomization.replicas.drain(..).map(|replica| (replica.name.clone(), replica)).collect();
    for KustomizeReplica { name, count } in overrides {
        let number = match &count.0 {
            Value::Number(number) => number.as_i64(),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        let Some(count) = number.filter(|count| *count >= 0) else {
            let message = format!("the count of '{name}' is not a whole number: {}", count.0);
            return Err(Problem::field(message).in_field("kustomize.replicas"));
        };
        replicas.insert(name.clone(), Replica { name: name.clone(), count });
    }
    kustomization.replicas = replicas.into_values().collect();
    Ok(())
}

/// `kustomize edit add label`
fn add_labels(
    kustomization: &mut Kustomization,
    overrides: &KustomizeSource,
    labels: BTreeMap<&String, String>,
    reader: &mut Reader<'_>,
) -> Result<(), Problem> {
    if labels.is_empty() {
        return Ok(());
    }
    let forced = overrides.force_common_labels;
    if !overrides.label_without_selector {
        if overrides.label_include_templates {
            let message = "labelIncludeTemplates needs labelWithoutSelector";
            return Err(Problem::field(message).in_field("kustomize.labelIncludeTemplates"));
        }
        for (key, value) in labels {
            add(&mut kustomization.common_labels, "commonLabels", key, value, forced, reader);
        }
        return Ok(());
    }
    let include_templates = overrides.label_include_templates;
    let fits = |label: &Label| !label.include_selectors && label.include_templates == include_templates;
    let index = match kustomization.labels.iter().position(fits) {
        Some(index) => index,
        None => {
            kustomization.labels.push(Label { include_templates, ..Label::default() });
            kustomization.labels.len().saturating_sub(1)
        }
    };
    if let Some(label) = kustomization.labels.get_mut(index) {
        for (key, value) in labels {
            add(&mut label.pairs, "labels", key, value, forced, reader);
        }
    }
    Ok(())
}

/// Sets a pair. Where the overlay says something else, and it was not asked to force it, a warning tells.
fn add(
    map: &mut BTreeMap<String, String>,
    field: &str,
    key: &str,
    value: String,
    forced: bool,
    reader: &mut Reader<'_>,
) {
    if let Some(old) = map.get(key).filter(|old| **old != value && !forced) {
        reader
            .warnings
            .push(format!("kustomize.{field}: '{key}' of the overlay is overridden: '{old}' becomes '{value}'"));
    }
    map.insert(key.to_owned(), value);
}

fn patch(patch: &KustomizePatch) -> Patch {
    let option = |name: &str| patch.options.get(name).copied().unwrap_or_default();
    Patch {
        path: patch.path.clone(),
        patch: patch.patch.clone(),
        target: patch.target.as_ref().map(selector),
        options: PatchOptions {
            allow_name_change: option("allowNameChange"),
            allow_kind_change: option("allowKindChange"),
        },
    }
}

fn selector(selector: &KustomizeSelector) -> Selector {
    let gvk = Gvk { group: selector.group.clone(), version: selector.version.clone(), kind: selector.kind.clone() };
    Selector {
        id: ResourceId {
            gvk,
            name: selector.name.clone(),
            namespace: selector.namespace.clone(),
            cluster_scoped: false,
        },
        annotation_selector: selector.annotation_selector.clone(),
        label_selector: selector.label_selector.clone(),
    }
}
