//! Typed reading of nodes that collects every problem instead of stopping at the first.

use std::collections::BTreeMap;

use windlass_protocol::yaml::{Node, Tag};

use super::{fieldspec::FieldSpec, id::Gvk};
use crate::error::{Problem, ProblemKind, RenderError};

/// What to make of fields nobody asked for, and of numbers where text is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Unknown fields and numbers for text are problems, as in a kustomization.
    Strict,
    /// Unknown fields are skipped and numbers become text, as in the configuration of a plugin.
    Lenient,
}

/// Names of fields with capitals, and short ones that people write with one.
const FIELDS: [&str; 90] = [
    "allowKindChange",
    "allowNameChange",
    "annotationSelector",
    "annotations",
    "apiVersion",
    "bases",
    "behavior",
    "buildMetadata",
    "commonAnnotations",
    "commonLabels",
    "components",
    "configMapGenerator",
    "configurations",
    "count",
    "crds",
    "create",
    "delimiter",
    "digest",
    "disableNameSuffixHash",
    "encoding",
    "env",
    "envs",
    "fieldPath",
    "fieldPaths",
    "fieldSpecs",
    "fieldref",
    "fields",
    "filePathPosition",
    "files",
    "generatorOptions",
    "generators",
    "group",
    "helmChartInflationGenerator",
    "helmCharts",
    "helmGlobals",
    "imageTag",
    "imageTags",
    "images",
    "immutable",
    "includeSelectors",
    "includeTemplates",
    "includeVolumeClaimTemplates",
    "index",
    "jsonOp",
    "kind",
    "labelSelector",
    "labels",
    "legacySortOptions",
    "literals",
    "metadata",
    "name",
    "namePrefix",
    "nameReference",
    "nameSuffix",
    "namespace",
    "newName",
    "newTag",
    "objref",
    "openapi",
    "options",
    "order",
    "orderFirst",
    "orderLast",
    "pairs",
    "patch",
    "patches",
    "patchesJson6902",
    "patchesStrategicMerge",
    "path",
    "paths",
    "prefix",
    "reject",
    "replacements",
    "replica",
    "replicas",
    "resources",
    "secretGenerator",
    "select",
    "selector",
    "source",
    "sourceValue",
    "sortOptions",
    "suffix",
    "tagSuffix",
    "target",
    "targetFilePath",
    "targets",
    "transformers",
    "validators",
    "vars",
];

/// Reads the nodes of one file.
pub(super) struct Decoder<'f> {
    file: &'f str,
    mode: Mode,
    problems: Vec<Problem>,
}

impl<'f> Decoder<'f> {
    pub(super) fn strict(file: &'f str) -> Self {
        Self { file, mode: Mode::Strict, problems: Vec::new() }
    }

    pub(super) fn lenient(file: &'f str) -> Self {
        Self { file, mode: Mode::Lenient, problems: Vec::new() }
    }

    /// The first problem, if there was one.
    pub(super) fn finish(self) -> Result<(), Problem> {
        self.problems.into_iter().next().map_or(Ok(()), Err)
    }

    /// All problems, if there was one.
    pub(super) fn finish_all(self) -> Result<(), RenderError> {
        if self.problems.is_empty() { Ok(()) } else { Err(RenderError { problems: self.problems }) }
    }

    /// Calls `take` for every field that is not null; it says whether it knows the field.
    pub(super) fn object(
        &mut self,
        node: &Node,
        path: &str,
        mut take: impl FnMut(&mut Self, &str, &Node, &str) -> bool,
    ) {
        if node.is_null() {
            return;
        }
        let Some(entries) = node.entries() else { return self.wrong(node, path, "a mapping") };
        for (key, value) in entries {
            let field = if path.is_empty() { key.text.clone() } else { format!("{path}.{}", key.text) };
            // Known fields are asked for even when null, so that unknown ones are found.
            let mut known = take(self, &key.text, value, &field);
            if !known {
                // Go's JSON finds fields whatever their case.
                let spelled = FIELDS.iter().find(|name| name.eq_ignore_ascii_case(&key.text) && **name != key.text);
                known = spelled.is_some_and(|name| take(self, name, value, &field));
            }
            if !known && self.mode == Mode::Strict {
                let problem = Problem::field(format!("unknown field \"{}\"", key.text));
                self.problems.push(problem.in_file(self.file).at_line(key.line).in_field(field));
            }
        }
    }

    pub(super) fn list<T>(
        &mut self,
        node: &Node,
        path: &str,
        mut read: impl FnMut(&mut Self, &Node, &str) -> T,
    ) -> Vec<T> {
        if node.is_null() {
            return Vec::new();
        }
        let Some(items) = node.items() else {
            self.wrong(node, path, "a list");
            return Vec::new();
        };
        let mut result = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            result.push(read(self, item, &format!("{path}[{index}]")));
        }
        result
    }

    pub(super) fn string(&mut self, node: &Node, path: &str) -> String {
        match node {
            Node::Scalar(scalar) => match scalar.tag {
                Tag::Null => String::new(),
                Tag::Str | Tag::Unset | Tag::Timestamp | Tag::Other | Tag::Merge | Tag::Binary => scalar.text.clone(),
                Tag::Int | Tag::Float | Tag::Bool if self.mode == Mode::Lenient => scalar.text.clone(),
                Tag::Int | Tag::Float | Tag::Bool => {
                    self.wrong(node, path, "a string; quote it");
                    String::new()
                }
            },
            Node::Sequence(_) | Node::Mapping(_) => {
                self.wrong(node, path, "a string");
                String::new()
            }
        }
    }

    pub(super) fn boolean(&mut self, node: &Node, path: &str) -> bool {
        match node.scalar() {
            Some(scalar) if scalar.tag == Tag::Bool => {
                matches!(
                    scalar.text.as_str(),
                    "true" | "True" | "TRUE" | "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON"
                )
            }
            Some(scalar) if scalar.tag == Tag::Null => false,
            _ => {
                self.wrong(node, path, "true or false");
                false
            }
        }
    }

    pub(super) fn integer(&mut self, node: &Node, path: &str) -> i64 {
        match node.scalar() {
            Some(scalar) if scalar.tag == Tag::Null => 0,
            Some(scalar) if scalar.tag == Tag::Int => match scalar.to_value(windlass_protocol::yaml::Dialect::Sigs) {
                Ok(value) => value.as_i64().unwrap_or_default(),
                Err(_) => 0,
            },
            _ => {
                self.wrong(node, path, "a whole number");
                0
            }
        }
    }

    pub(super) fn strings(&mut self, node: &Node, path: &str) -> Vec<String> {
        self.list(node, path, Self::string)
    }

    pub(super) fn string_map(&mut self, node: &Node, path: &str) -> BTreeMap<String, String> {
        let mut map = BTreeMap::new();
        self.object(node, path, |decoder, name, value, path| {
            map.insert(name.to_owned(), decoder.string(value, path));
            true
        });
        map
    }

    pub(super) fn field_spec(&mut self, node: &Node, path: &str) -> FieldSpec {
        let mut gvk = Gvk::default();
        let (mut field, mut create) = (String::new(), false);
        self.object(node, path, |decoder, name, value, path| {
            match name {
                "group" => gvk.group = decoder.string(value, path),
                "version" => gvk.version = decoder.string(value, path),
                "kind" => gvk.kind = decoder.string(value, path),
                "path" => field = decoder.string(value, path),
                "create" => create = decoder.boolean(value, path),
                _ => return false,
            }
            true
        });
        FieldSpec::new(gvk, field, create)
    }

    fn wrong(&mut self, node: &Node, path: &str, wanted: &str) {
        let message = format!("cannot unmarshal {} into {wanted}", node.kind_name());
        let problem = Problem::new(ProblemKind::Field, message);
        self.problems.push(problem.in_file(self.file).at_line(node.line()).in_field(path));
    }
}
