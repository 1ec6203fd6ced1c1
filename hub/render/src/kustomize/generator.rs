//! `configMapGenerator` and `secretGenerator`: literals, files and env files become data.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use windlass_protocol::yaml::{Node, Scalar, Style, Tag};

use super::{
    build::Build,
    fields::quoted_string,
    file::{Generator, GeneratorOptions},
    resource::{Behavior, Resource, set_metadata_map},
};
use crate::error::{Problem, ProblemKind};

/// What is generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    ConfigMap,
    Secret,
}

/// The options of a generator with those of its kustomization laid under.
pub(super) fn merged_options(local: Option<&GeneratorOptions>, global: Option<&GeneratorOptions>) -> GeneratorOptions {
    let mut options = local.cloned().unwrap_or_default();
    let Some(global) = global else { return options };
    for (mine, theirs) in [(&mut options.labels, &global.labels), (&mut options.annotations, &global.annotations)] {
        for (key, value) in theirs {
            mine.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    options.disable_name_suffix_hash |= global.disable_name_suffix_hash;
    options.immutable |= global.immutable;
    options
}

/// Makes the resource.
pub(super) fn generate(
    build: &mut Build<'_, '_>,
    root: &str,
    kind: Kind,
    generator: &Generator,
    options: &GeneratorOptions,
) -> Result<Resource, Problem> {
    if generator.name.is_empty() {
        return Err(Problem::field("a configmap must have a name"));
    }
    let data = load_data(build, root, generator)?;
    let mut node = base(kind, generator);
    match kind {
        Kind::ConfigMap => {
            let (text, binary): (Vec<_>, Vec<_>) =
                data.into_iter().partition(|(_, content)| std::str::from_utf8(content).is_ok());
            push(
                &mut node,
                "data",
                text.into_iter()
                    .map(|(key, content)| entry(&key, String::from_utf8_lossy(&content).into_owned()))
                    .collect(),
            );
            push(
                &mut node,
                "binaryData",
                binary.into_iter().map(|(key, content)| entry(&key, encode(&content))).collect(),
            );
        }
        Kind::Secret => {
            let secret_type = if generator.secret_type.is_empty() { "Opaque" } else { &generator.secret_type };
            if let Node::Mapping(fields) = &mut node {
                fields.push((Scalar::untyped("type"), quoted_string(secret_type)));
                let entries = data.into_iter().map(|(key, content)| entry(&key, encode(&content))).collect();
                fields.push((Scalar::untyped("data"), Node::Mapping(entries)));
            }
        }
    }
    set_metadata_map_if(&mut node, "labels", &options.labels)?;
    set_metadata_map_if(&mut node, "annotations", &options.annotations)?;
    if options.immutable {
        let flag = Scalar { text: "true".to_owned(), tag: Tag::Bool, style: Style::Plain, line: 0 };
        push_field(&mut node, "immutable", Node::Scalar(flag));
    }
    let mut resource = Resource::new(node, &build.schema);
    resource.needs_hash = !options.disable_name_suffix_hash;
    resource.behavior = Behavior::parse(&generator.behavior);
    Ok(resource)
}

/// The value of a key of `data`: a string, as a block when it has several lines.
pub(super) fn data_value(text: &str) -> Node {
    quoted_string(text)
}

/// A key of `data`.
pub(super) fn data_key(key: &str) -> Scalar {
    Scalar::untyped(key)
}

fn base(kind: Kind, generator: &Generator) -> Node {
    let kind = match kind {
        Kind::ConfigMap => "ConfigMap",
        Kind::Secret => "Secret",
    };
    let mut metadata = vec![(Scalar::untyped("name"), quoted_string(generator.name.as_str()))];
    if !generator.namespace.is_empty() {
        metadata.push((Scalar::untyped("namespace"), quoted_string(generator.namespace.as_str())));
    }
    Node::Mapping(vec![
        (Scalar::untyped("apiVersion"), Node::string("v1")),
        (Scalar::untyped("kind"), Node::string(kind)),
        (Scalar::untyped("metadata"), Node::Mapping(metadata)),
    ])
}

fn entry(key: &str, text: String) -> (Scalar, Node) {
    (data_key(key), quoted_string(text))
}

fn push(node: &mut Node, field: &str, entries: Vec<(Scalar, Node)>) {
    if !entries.is_empty() {
        push_field(node, field, Node::Mapping(entries));
    }
}

fn push_field(node: &mut Node, field: &str, value: Node) {
    if let Node::Mapping(fields) = node {
        fields.push((Scalar::untyped(field), value));
    }
}

fn set_metadata_map_if(node: &mut Node, field: &str, map: &BTreeMap<String, String>) -> Result<(), Problem> {
    if map.is_empty() { Ok(()) } else { set_metadata_map(node, field, map) }
}

/// Base64 in lines of 70 characters once it is longer than one line, as go-yaml breaks it.
fn encode(content: &[u8]) -> String {
    const LINE: usize = 70;
    let text = STANDARD.encode(content);
    if text.len() < LINE {
        return text;
    }
    let mut lines = String::with_capacity(text.len() + text.len() / LINE + 1);
    for (index, character) in text.chars().enumerate() {
        if index > 0 && index % LINE == 0 {
            lines.push('\n');
        }
        lines.push(character);
    }
    lines.push('\n');
    lines
}

fn load_data(
    build: &mut Build<'_, '_>,
    root: &str,
    generator: &Generator,
) -> Result<BTreeMap<String, Vec<u8>>, Problem> {
    let mut data = BTreeMap::new();
    let mut add = |key: String, value: Vec<u8>| {
        if data.insert(key.clone(), value).is_some() {
            let name = &generator.name;
            return Err(Problem::conflict(format!("configmap {name} illegally repeats the key `{key}`")));
        }
        Ok(())
    };
    for path in &generator.envs {
        let (file, content) = build.load(root, path).map_err(|problem| problem.while_("env source files"))?;
        for (line, (key, value)) in env_lines(&file, &content)? {
            add(key, value.into_bytes()).map_err(|problem| problem.in_file(&file).at_line(line))?;
        }
    }
    for literal in &generator.literals {
        let (key, value) = literal_pair(literal)?;
        add(key, value.into_bytes())?;
    }
    for source in &generator.files {
        let (key, path) = file_pair(source)?;
        let (_, content) = build.load(root, path).map_err(|problem| problem.while_("file sources"))?;
        add(key.to_owned(), content.to_vec())?;
    }
    Ok(data)
}

type NumberedPair = (u32, (String, String));

fn env_lines(file: &str, content: &[u8]) -> Result<Vec<NumberedPair>, Problem> {
    let text = std::str::from_utf8(content)
        .map_err(|_| Problem::new(ProblemKind::Syntax, "has invalid utf8 bytes").in_file(file))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut pairs = Vec::new();
    for (line, number) in text.split('\n').zip(1..) {
        let line = line.strip_suffix('\r').unwrap_or(line).trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        if !key.is_empty() {
            pairs.push((number, (key.to_owned(), value.to_owned())));
        }
    }
    Ok(pairs)
}

fn literal_pair(literal: &str) -> Result<(String, String), Problem> {
    let refuse = || Problem::field(format!("invalid literal source {literal}, expected key=value"));
    let (key, value) = literal.split_once('=').ok_or_else(refuse)?;
    if key.is_empty() {
        return Err(refuse());
    }
    let unquoted = ['"', '\''].iter().find_map(|quote| {
        let inner = value.strip_prefix(*quote)?;
        inner.strip_suffix(*quote)
    });
    Ok((key.to_owned(), unquoted.unwrap_or(value).to_owned()))
}

fn file_pair(source: &str) -> Result<(&str, &str), Problem> {
    let mut parts = source.split('=');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(path), None, _) => Ok((crate::path::base_name(path), path)),
        (Some(""), Some(path), None) => {
            Err(Problem::field(format!("missing key name for file path \"{path}\" in source \"{source}\"")))
        }
        (Some(key), Some(""), None) => {
            Err(Problem::field(format!("missing file path for key name \"{key}\" in source \"{source}\"")))
        }
        (Some(key), Some(path), None) => Ok((key, path)),
        _ => Err(Problem::field(format!("source \"{source}\" key name or file path contains '='"))),
    }
}
