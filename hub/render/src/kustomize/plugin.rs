//! `generators`, `transformers` and `validators`: configurations of Kustomize's built-in plugins.
//!
//! Programs and containers are never run; they are refused by name.

use std::{collections::BTreeMap, sync::Arc};

use windlass_protocol::yaml::{self, Dialect, DuplicateKeys, Node};

use super::{
    build::{Accumulator, Build, Level},
    decode::Decoder,
    fieldspec::{FieldSpec, FieldSpecs},
    file::{Generator, Image, Patch, PatchOptions, Replacement, ReplacementField, Replica, Selector},
    generator,
    origin::{ConfiguredBy, Origin},
    resource::Resource,
    transform::{Configured, PatchSet, Subjects, Transformer, ValueTarget},
};
use crate::{
    error::{Problem, RenderError},
    path,
};

/// The resources that the generators of a kustomization make.
pub(super) fn generators(build: &mut Build<'_, '_>, level: &Level<'_>) -> Result<Vec<Resource>, RenderError> {
    let mut made = Vec::new();
    for config in configurations(build, level, &level.kustomization.generators, "generators")? {
        let here = |problem: Problem| problem.in_file(&level.file).in_field("generators");
        check_built_in(&config).map_err(here)?;
        let kind = match config.id.gvk.kind.as_str() {
            "ConfigMapGenerator" => generator::Kind::ConfigMap,
            "SecretGenerator" => generator::Kind::Secret,
            other => return Err(here(Problem::unsupported(format!("the generator '{other}' is not supported"))).into()),
        };
        let mut decoder = Decoder::lenient(&level.file);
        let mut generator = match kind {
            generator::Kind::ConfigMap => Generator::read_config_map(&mut decoder, &config.node, ""),
            generator::Kind::Secret => Generator::read_secret(&mut decoder, &config.node, ""),
        };
        decoder.finish()?;
        if generator.name.is_empty() {
            generator.name.clone_from(&config.id.name);
        }
        if generator.namespace.is_empty() {
            generator.namespace.clone_from(&config.id.namespace);
        }
        let options = generator::merged_options(generator.options.as_ref(), None);
        let mut resource = generator::generate(build, &level.root, kind, &generator, &options).map_err(here)?;
        resource.origin = plugin_origin(&config).map(|origin| Origin::clone(&origin));
        made.push(resource);
    }
    Ok(made)
}

/// The external transformers of a kustomization.
pub(super) fn transformers(build: &mut Build<'_, '_>, level: &Level<'_>) -> Result<Vec<Configured>, RenderError> {
    configured(build, level, &level.kustomization.transformers, "transformers")
}

/// The validators of a kustomization: transformers that must not change anything.
pub(super) fn validators(build: &mut Build<'_, '_>, level: &Level<'_>) -> Result<Vec<Configured>, RenderError> {
    configured(build, level, &level.kustomization.validators, "validators")
}

fn configured(
    build: &mut Build<'_, '_>,
    level: &Level<'_>,
    entries: &[String],
    field: &str,
) -> Result<Vec<Configured>, RenderError> {
    let mut steps = Vec::new();
    for config in configurations(build, level, entries, field)? {
        let here = |problem: Problem| {
            problem.while_(format!("plugin {} fails configuration", config.id)).in_file(&level.file).in_field(field)
        };
        check_built_in(&config).map_err(here)?;
        let origin = plugin_origin(&config);
        for transformer in transformer(build, level, &config).map_err(here)? {
            steps.push(Configured { transformer, origin: origin.clone() });
        }
    }
    Ok(steps)
}

/// Resources that configure plugins, given inline or by path.
fn configurations(
    build: &mut Build<'_, '_>,
    level: &Level<'_>,
    entries: &[String],
    field: &str,
) -> Result<Vec<Resource>, RenderError> {
    if entries.is_empty() {
        return Ok(Vec::new());
    }
    let mut accumulator = Accumulator::default();
    let mut paths = Vec::new();
    for entry in entries {
        let inline =
            if entry.contains([':', '\n']) { build.parse("inline plugin", entry.as_bytes()).ok() } else { None };
        match inline {
            None => paths.push(entry.clone()),
            Some(mut resources) => {
                if let Some(origin) = &level.origin {
                    for resource in &mut resources {
                        resource.origin = Some(origin.append(path::base_name(&level.file)));
                    }
                }
                let here = |problem: Problem| problem.in_file(&level.file).in_field(field);
                accumulator.map.append_all(resources).map_err(here)?;
            }
        }
    }
    let accumulator = build.resources(level, accumulator, &paths)?;
    Ok(accumulator.map.list)
}

fn check_built_in(config: &Resource) -> Result<(), Problem> {
    let gvk = &config.id.gvk;
    if gvk.group.is_empty() && gvk.version == "builtin" {
        return Ok(());
    }
    let message = format!(
        "external plugins disabled; '{}' would run a program or container, which Windlass never does: commit its output instead",
        gvk.kind
    );
    Err(Problem::unsupported(message))
}

fn plugin_origin(config: &Resource) -> Option<Arc<Origin>> {
    let origin = config.origin.as_ref()?;
    let by = ConfiguredBy {
        api_version: config.id.gvk.api_version(),
        kind: config.id.gvk.kind.clone(),
        name: config.id.name.clone(),
        namespace: config.id.namespace.clone(),
    };
    Some(Arc::new(Origin { path: String::new(), configured_in: origin.path.clone(), configured_by: Some(by) }))
}

fn transformer(build: &mut Build<'_, '_>, level: &Level<'_>, config: &Resource) -> Result<Vec<Transformer>, Problem> {
    let fields = Fields::read(&level.file, &config.node)?;
    let specs = FieldSpecs(fields.field_specs.clone());
    let one = |transformer| Ok(vec![transformer]);
    match config.id.gvk.kind.as_str() {
        "AnnotationsTransformer" => one(Transformer::Labels { pairs: fields.annotations, specs }),
        "LabelTransformer" => one(Transformer::Labels { pairs: fields.labels, specs }),
        "HashTransformer" => one(Transformer::Hash),
        "ImageTagTransformer" => one(Transformer::Images { image: fields.image, specs }),
        "ReplicaCountTransformer" => one(Transformer::Replicas { replica: fields.replica, specs }),
        "PrefixTransformer" => one(Transformer::Prefix { prefix: fields.prefix, specs }),
        "SuffixTransformer" => one(Transformer::Suffix { suffix: fields.suffix, specs }),
        "PrefixSuffixTransformer" => Ok(vec![
            Transformer::Prefix { prefix: fields.prefix, specs: specs.clone() },
            Transformer::Suffix { suffix: fields.suffix, specs },
        ]),
        "NamespaceTransformer" => one(Transformer::Namespace {
            namespace: config.id.namespace.clone(),
            specs,
            subjects: subjects(&fields.subjects)?,
            unset_only: fields.unset_only,
        }),
        "PatchStrategicMergeTransformer" => {
            strategic(build, level, &fields).map(|patches| vec![Transformer::Patches(patches)])
        }
        "PatchTransformer" => build.patch(&level.root, &fields.patch).map(|patch| vec![Transformer::Patches(patch)]),
        "PatchJson6902Transformer" => {
            let patch = Patch { patch: fields.json_op, ..fields.patch };
            build.json_patch(&level.root, &patch).map(|patch| vec![Transformer::Patches(patch)])
        }
        "ReplacementTransformer" => {
            build.replacements(&level.root, &fields.replacements).map(|list| vec![Transformer::Replacements(list)])
        }
        "ValueAddTransformer" => value_add(build, level, fields).map(|transformer| vec![transformer]),
        other => Err(Problem::unsupported(format!("unable to load builtin {other}"))),
    }
}

fn subjects(mode: &str) -> Result<Subjects, Problem> {
    match mode {
        "" | "defaultOnly" => Ok(Subjects::DefaultOnly),
        "allServiceAccounts" => Ok(Subjects::AllServiceAccounts),
        "none" => Ok(Subjects::None),
        other => Err(Problem::field(format!(
            "invalid value \"{other}\" for setRoleBindingSubjects: must be one of \"defaultOnly\", \"none\" or \"allServiceAccounts\""
        ))),
    }
}

fn strategic(build: &mut Build<'_, '_>, level: &Level<'_>, fields: &Fields) -> Result<PatchSet, Problem> {
    if fields.paths.is_empty() && fields.patches.is_empty() {
        return Err(Problem::patch("empty file path and empty patch content"));
    }
    let mut patches = Vec::new();
    if !fields.paths.is_empty() {
        patches.extend(build.strategic_patches(&level.root, &fields.paths)?);
    }
    if !fields.patches.is_empty() {
        patches.extend(build.parse("inline patch", fields.patches.as_bytes())?);
    }
    if patches.is_empty() {
        return Err(Problem::patch("patch appears to be empty"));
    }
    Ok(PatchSet::ByIdentity(patches))
}

fn value_add(build: &mut Build<'_, '_>, level: &Level<'_>, fields: Fields) -> Result<Transformer, Problem> {
    let mut targets = fields.targets;
    if !fields.target_file_path.is_empty() {
        let (file, content) = build.load(&level.root, &fields.target_file_path)?;
        for node in parse_sigs(&file, &content)? {
            targets.extend(Fields::read(&file, &node)?.targets);
        }
    }
    if targets.is_empty() {
        return Err(Problem::field("must specify at least one target"));
    }
    if targets.iter().any(|target| target.field_path.is_empty()) {
        return Err(Problem::field("fieldPath cannot be empty"));
    }
    let value = fields.value.trim();
    let value = if value.is_empty() { path::base_name(&level.root) } else { value };
    Ok(Transformer::ValueAdd { value: value.to_owned(), targets })
}

/// Every field that some built-in transformer reads.
#[derive(Default)]
struct Fields {
    annotations: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    field_specs: Vec<FieldSpec>,
    image: Image,
    replica: Replica,
    prefix: String,
    suffix: String,
    subjects: String,
    unset_only: bool,
    paths: Vec<String>,
    patches: String,
    patch: Patch,
    json_op: String,
    replacements: Vec<ReplacementField>,
    value: String,
    targets: Vec<ValueTarget>,
    target_file_path: String,
}

impl Fields {
    fn read(file: &str, node: &Node) -> Result<Self, Problem> {
        let mut made = Self::default();
        let mut decoder = Decoder::lenient(file);
        decoder.object(node, "", |decoder, name, value, path| made.field(decoder, name, value, path));
        decoder.finish()?;
        Ok(made)
    }

    fn field(&mut self, decoder: &mut Decoder<'_>, name: &str, value: &Node, path: &str) -> bool {
        match name {
            "annotations" => self.annotations = decoder.string_map(value, path),
            "labels" => self.labels = decoder.string_map(value, path),
            "fieldSpecs" => self.field_specs = decoder.list(value, path, Decoder::field_spec),
            "imageTag" => self.image = Image::read(decoder, value, path),
            "replica" => self.replica = Replica::read(decoder, value, path),
            "prefix" => self.prefix = decoder.string(value, path),
            "suffix" => self.suffix = decoder.string(value, path),
            "setRoleBindingSubjects" => self.subjects = decoder.string(value, path),
            "unsetOnly" => self.unset_only = decoder.boolean(value, path),
            "paths" => self.paths = decoder.strings(value, path),
            "patches" => self.patches = decoder.string(value, path),
            "path" => self.patch.path = decoder.string(value, path),
            "patch" => self.patch.patch = decoder.string(value, path),
            "target" if value.is_null() => {}
            "target" => self.patch.target = Some(Selector::read(decoder, value, path)),
            "options" => self.patch.options = PatchOptions::read(decoder, value, path),
            "jsonOp" => self.json_op = decoder.string(value, path),
            "replacements" => self.replacements = decoder.list(value, path, ReplacementField::read),
            "value" => self.value = decoder.string(value, path),
            "targets" => self.targets = decoder.list(value, path, value_target),
            "targetFilePath" => self.target_file_path = decoder.string(value, path),
            _ => return false,
        }
        true
    }
}

fn value_target(decoder: &mut Decoder<'_>, node: &Node, path: &str) -> ValueTarget {
    let mut made = ValueTarget { selector: None, field_path: String::new(), position: 0 };
    decoder.object(node, path, |decoder, name, value, path| {
        match name {
            "selector" if value.is_null() => {}
            "selector" => made.selector = Some(Selector::read(decoder, value, path)),
            "fieldPath" => made.field_path = decoder.string(value, path),
            "filePathPosition" => made.position = usize::try_from(decoder.integer(value, path)).unwrap_or_default(),
            _ => return false,
        }
        true
    });
    made
}

/// Reads a file of one replacement or a list of them.
pub(super) fn read_replacements(file: &str, content: &[u8]) -> Result<Vec<Replacement>, Problem> {
    let mut made = Vec::new();
    for node in parse_sigs(file, content)? {
        let mut decoder = Decoder::lenient(file);
        match &node {
            Node::Sequence(_) => made.extend(decoder.list(&node, "", Replacement::read)),
            Node::Mapping(_) => made.push(Replacement::read(&mut decoder, &node, "")),
            Node::Scalar(_) => {
                let message =
                    format!("unsupported replacement type encountered within replacement path: {}", node.kind_name());
                return Err(Problem::field(message).in_file(file).at_line(node.line()));
            }
        }
        decoder.finish()?;
    }
    Ok(made)
}

fn parse_sigs(file: &str, content: &[u8]) -> Result<Vec<Node>, Problem> {
    let options =
        yaml::Options { dialect: Dialect::Sigs, duplicates: DuplicateKeys::Error, limits: yaml::Limits::default() };
    let documents = yaml::parse_bytes(content, &options).map_err(|error| Problem::from_yaml(file, &error))?;
    Ok(documents.into_iter().map(|document| document.node).collect())
}
