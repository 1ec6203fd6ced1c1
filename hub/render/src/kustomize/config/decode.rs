//! Configurations from files: `configurations` and `crds` of a kustomization.

use serde_json::{Map, Value};
use windlass_protocol::yaml::{self, Dialect, DuplicateKeys, Node};

use super::{Config, NameReference};
use crate::{
    error::Problem,
    kustomize::{
        decode::Decoder,
        fieldspec::{FieldSpec, FieldSpecs},
        id::Gvk,
    },
};

/// Reads a file of `configurations`; unknown fields are errors.
pub(in crate::kustomize) fn from_bytes(file: &str, content: &[u8]) -> Result<Config, Problem> {
    let options = yaml::Options {
        dialect: Dialect::Sigs,
        duplicates: DuplicateKeys::Error,
        limits: yaml::Limits { bytes: usize::MAX, ..yaml::Limits::default() },
    };
    let documents = yaml::parse_bytes(content, &options).map_err(|error| Problem::from_yaml(file, &error))?;
    let mut config = Config::default();
    let Some(document) = documents.first() else { return Ok(config) };
    let mut decoder = Decoder::strict(file);
    decoder.object(&document.node, "", |decoder, name, value, path| {
        let specs = match name {
            "namePrefix" => &mut config.name_prefix,
            "nameSuffix" => &mut config.name_suffix,
            "namespace" => &mut config.namespace,
            "commonLabels" => &mut config.common_labels,
            "labels" => &mut config.labels,
            "templateLabels" => &mut config.template_labels,
            "commonAnnotations" => &mut config.common_annotations,
            "varReference" => &mut config.var_reference,
            "images" => &mut config.images,
            "replicas" => &mut config.replicas,
            // Known to later releases only; templates and claims are labelled alike here.
            "volumeClaimTemplateLabels" => {
                decoder.list(value, path, Decoder::field_spec);
                return true;
            }
            "nameReference" => {
                config.name_reference = decoder.list(value, path, name_reference);
                return true;
            }
            _ => return false,
        };
        *specs = FieldSpecs(decoder.list(value, path, Decoder::field_spec));
        true
    });
    decoder.finish()?;
    config.sort();
    Ok(config)
}

fn name_reference(decoder: &mut Decoder<'_>, node: &Node, path: &str) -> NameReference {
    let mut reference = NameReference::default();
    decoder.object(node, path, |decoder, name, value, path| {
        match name {
            "group" => reference.target.group = decoder.string(value, path),
            "version" => reference.target.version = decoder.string(value, path),
            "kind" => reference.target.kind = decoder.string(value, path),
            "fieldSpecs" => reference.referrers = FieldSpecs(decoder.list(value, path, Decoder::field_spec)),
            _ => return false,
        }
        true
    });
    reference
}

/// Reads a file of `crds`: OpenAPI definitions whose extensions say which fields hold labels, annotations and names.
pub(in crate::kustomize) fn from_crds(file: &str, content: &[u8]) -> Result<Config, Problem> {
    let text = std::str::from_utf8(content).unwrap_or_default();
    let document = yaml::value(text).map_err(|error| Problem::from_yaml(file, &error))?;
    let empty = Map::new();
    let definitions = document.as_object().unwrap_or(&empty);
    let mut config = Config::default();
    for (name, definition) in definitions {
        let properties = properties(definition);
        let is_kind =
            properties.is_some_and(|map| ["kind", "apiVersion", "metadata"].iter().all(|key| map.contains_key(*key)));
        if is_kind {
            let kind = name.rsplit('.').next().unwrap_or(name);
            let mut crd = Crd { definitions, config: &mut config, kind };
            crd.load(name, &mut Vec::new()).map_err(|problem| problem.in_file(file))?;
        }
    }
    config.sort();
    Ok(config)
}

/// References inside one another are followed to this depth; a type may hold itself.
const DEPTH: usize = 16;

struct Crd<'d> {
    definitions: &'d Map<String, Value>,
    config: &'d mut Config,
    kind: &'d str,
}

impl Crd<'_> {
    fn load(&mut self, name: &str, path: &mut Vec<String>) -> Result<(), Problem> {
        let definitions = self.definitions;
        let Some(properties) = definitions.get(name).and_then(properties) else { return Ok(()) };
        if path.len() > DEPTH {
            return Ok(());
        }
        for (field, property) in properties {
            path.push(field.clone());
            let has = |extension: &str| property.get(extension).and_then(Value::as_str).is_some();
            if has("x-kubernetes-annotation") {
                self.config.common_annotations.merge_one(self.spec(path))?;
            }
            if has("x-kubernetes-label-selector") {
                self.config.common_labels.merge_one(self.spec(path))?;
            }
            if has("x-kubernetes-identity") {
                self.config.name_prefix.merge_one(self.spec(path))?;
            }
            let text = |extension: &str| property.get(extension).and_then(Value::as_str);
            if let (Some(version), Some(kind)) =
                (text("x-kubernetes-object-ref-api-version"), text("x-kubernetes-object-ref-kind"))
            {
                path.push(text("x-kubernetes-object-ref-name-key").unwrap_or("name").to_owned());
                let target = Gvk { group: String::new(), version: version.to_owned(), kind: kind.to_owned() };
                let reference = NameReference { target, referrers: FieldSpecs(vec![self.spec(path)]) };
                self.config.add_name_reference(&reference)?;
                path.pop();
            }
            if let Some(next) = text("$ref") {
                self.load(next, path)?;
            }
            path.pop();
        }
        Ok(())
    }

    fn spec(&self, path: &[String]) -> FieldSpec {
        super::of_kind(self.kind, path.join("/"), false)
    }
}

fn properties(definition: &Value) -> Option<&Map<String, Value>> {
    let schema = definition.get("Schema").or_else(|| definition.get("schema"))?;
    schema.get("properties").and_then(Value::as_object)
}
