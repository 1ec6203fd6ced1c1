//! A kustomization file as typed fields; every problem in it is reported at once, with its line.

mod parts;

use std::collections::BTreeMap;

use windlass_protocol::yaml::{self, Dialect, DuplicateKeys, Node};

use super::decode::Decoder;
use crate::error::{Problem, RenderError};

pub(crate) use self::parts::{
    FieldOptions, Generator, GeneratorOptions, Image, Label, Patch, PatchOptions, Replacement, ReplacementField,
    Replica, Selector, SortOptions, Source, Target, Variable,
};

/// The names a kustomization file may have.
pub(crate) const FILE_NAMES: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

const KUSTOMIZATION_VERSION: &str = "kustomize.config.k8s.io/v1beta1";
const COMPONENT_VERSION: &str = "kustomize.config.k8s.io/v1alpha1";

/// Which sort of kustomization a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum FileKind {
    /// `kind: Kustomization`, or none.
    #[default]
    Kustomization,
    /// `kind: Component`.
    Component,
}

impl FileKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kustomization => "Kustomization",
            Self::Component => "Component",
        }
    }
}

/// The fields of a kustomization file, deprecated ones folded into their successors.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Kustomization {
    pub(crate) kind: FileKind,
    pub(crate) openapi: BTreeMap<String, String>,
    pub(crate) name_prefix: String,
    pub(crate) name_suffix: String,
    pub(crate) namespace: String,
    pub(crate) common_labels: BTreeMap<String, String>,
    pub(crate) labels: Vec<Label>,
    pub(crate) common_annotations: BTreeMap<String, String>,
    pub(crate) patches_strategic_merge: Vec<String>,
    pub(crate) patches_json6902: Vec<Patch>,
    pub(crate) patches: Vec<Patch>,
    pub(crate) images: Vec<Image>,
    pub(crate) replacements: Vec<ReplacementField>,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) vars: Vec<Variable>,
    pub(crate) sort_options: Option<SortOptions>,
    pub(crate) resources: Vec<String>,
    pub(crate) components: Vec<String>,
    pub(crate) crds: Vec<String>,
    pub(crate) config_maps: Vec<Generator>,
    pub(crate) secrets: Vec<Generator>,
    pub(crate) generator_options: Option<GeneratorOptions>,
    pub(crate) configurations: Vec<String>,
    pub(crate) generators: Vec<String>,
    pub(crate) transformers: Vec<String>,
    pub(crate) validators: Vec<String>,
    pub(crate) build_metadata: Vec<String>,
    /// Whether any field of Helm charts is set.
    pub(crate) helm: bool,
}

/// Fields that are taken over and their warnings, in the order in which Kustomize prints them.
const DEPRECATED: [(&str, &str); 6] = [
    ("bases", "resources"),
    ("commonLabels", "labels"),
    ("imageTags", "images"),
    ("patchesJson6902", "patches"),
    ("patchesStrategicMerge", "patches"),
    ("vars", "replacements"),
];

impl Kustomization {
    /// Reads the file `file`; warnings about deprecated fields go to `warnings`.
    pub(super) fn parse(file: &str, content: &[u8], warnings: &mut Vec<String>) -> Result<Self, RenderError> {
        let options = yaml::Options {
            dialect: Dialect::Sigs,
            duplicates: DuplicateKeys::LastWins,
            limits: yaml::Limits { bytes: usize::MAX, ..yaml::Limits::default() },
        };
        let documents = yaml::parse_bytes(content, &options)
            .map_err(|error| Problem::from_yaml(file, &error).while_("invalid Kustomization"))?;
        let empty = || Problem::field("kustomization.yaml is empty").in_file(file);
        let document = documents.first().ok_or_else(empty)?;
        let node = &document.node;
        let repeated = document.warnings.iter().map(|warning| format!("{file}:{}: {}", warning.line, warning.message));
        warnings.extend(repeated);
        let mut decoder = Decoder::strict(file);
        let mut raw = Raw::default();
        decoder.object(node, "", |decoder, name, value, path| raw.field(decoder, name, value, path));
        decoder.finish_all()?;
        warn(file, node, warnings);
        let kustomization = raw.finish(file, node)?;
        if kustomization == (Self { kind: kustomization.kind, ..Self::default() }) && raw_is_empty(node) {
            return Err(empty().into());
        }
        Ok(kustomization)
    }
}

/// Fields as read, before the deprecated ones are folded in.
#[derive(Default)]
struct Raw {
    made: Kustomization,
    api_version: String,
    kind: String,
    bases: Vec<String>,
    image_tags: Vec<Image>,
}

impl Raw {
    fn field(&mut self, decoder: &mut Decoder<'_>, name: &str, value: &Node, path: &str) -> bool {
        self.list_field(decoder, name, value, path) || self.other_field(decoder, name, value, path)
    }

    fn list_field(&mut self, decoder: &mut Decoder<'_>, name: &str, value: &Node, path: &str) -> bool {
        let made = &mut self.made;
        let list = match name {
            "patchesStrategicMerge" => &mut made.patches_strategic_merge,
            "resources" => &mut made.resources,
            "components" => &mut made.components,
            "crds" => &mut made.crds,
            "bases" => &mut self.bases,
            "configurations" => &mut made.configurations,
            "generators" => &mut made.generators,
            "transformers" => &mut made.transformers,
            "validators" => &mut made.validators,
            "buildMetadata" => &mut made.build_metadata,
            _ => return false,
        };
        *list = decoder.strings(value, path);
        true
    }

    fn other_field(&mut self, decoder: &mut Decoder<'_>, name: &str, value: &Node, path: &str) -> bool {
        let made = &mut self.made;
        match name {
            "apiVersion" => self.api_version = decoder.string(value, path),
            "kind" => self.kind = decoder.string(value, path),
            "metadata" => parts::metadata(decoder, value, path),
            "openapi" => made.openapi = decoder.string_map(value, path),
            "namePrefix" => made.name_prefix = decoder.string(value, path),
            "nameSuffix" => made.name_suffix = decoder.string(value, path),
            "namespace" => made.namespace = decoder.string(value, path),
            "commonLabels" => made.common_labels = decoder.string_map(value, path),
            "labels" => made.labels = decoder.list(value, path, Label::read),
            "commonAnnotations" => made.common_annotations = decoder.string_map(value, path),
            "patchesJson6902" => made.patches_json6902 = decoder.list(value, path, Patch::read),
            "patches" => made.patches = decoder.list(value, path, Patch::read),
            "images" => made.images = decoder.list(value, path, Image::read),
            "imageTags" => self.image_tags = decoder.list(value, path, Image::read),
            "replacements" => made.replacements = decoder.list(value, path, ReplacementField::read),
            "replicas" => made.replicas = decoder.list(value, path, Replica::read),
            "vars" => made.vars = decoder.list(value, path, Variable::read),
            "sortOptions" if value.is_null() => {}
            "sortOptions" => made.sort_options = Some(SortOptions::read(decoder, value, path)),
            "configMapGenerator" => made.config_maps = decoder.list(value, path, Generator::read_config_map),
            "secretGenerator" => made.secrets = decoder.list(value, path, Generator::read_secret),
            "generatorOptions" if value.is_null() => {}
            "generatorOptions" => made.generator_options = Some(GeneratorOptions::read(decoder, value, path)),
            "helmGlobals" | "helmCharts" | "helmChartInflationGenerator" => made.helm |= !value.is_empty(),
            _ => return false,
        }
        true
    }

    fn finish(self, file: &str, node: &Node) -> Result<Kustomization, RenderError> {
        let mut made = self.made;
        made.resources.extend(self.bases);
        made.images.extend(self.image_tags);
        let line = |field: &str| node.get(field).map_or(0, Node::line);
        let refuse = |field: &str, message: String| {
            Problem::field(message).in_file(file).at_line(line(field)).in_field(field).into()
        };
        made.kind = match self.kind.as_str() {
            "" | "Kustomization" => FileKind::Kustomization,
            "Component" => FileKind::Component,
            _ => return Err(refuse("kind", "kind should be Kustomization or Component".to_owned())),
        };
        let required = match made.kind {
            FileKind::Kustomization => KUSTOMIZATION_VERSION,
            FileKind::Component => COMPONENT_VERSION,
        };
        if !self.api_version.is_empty() && self.api_version != required {
            return Err(refuse("apiVersion", format!("apiVersion for {} should be {required}", made.kind.name())));
        }
        Ok(made)
    }
}

fn raw_is_empty(node: &Node) -> bool {
    let entries = node.entries().unwrap_or_default();
    entries.iter().all(|(key, value)| matches!(key.text.as_str(), "apiVersion" | "kind") || value.is_null())
}

fn warn(file: &str, node: &Node, warnings: &mut Vec<String>) {
    for (old, new) in DEPRECATED {
        let Some(value) = node.get(old).filter(|value| !value.is_null()) else { continue };
        let hint = if old == "vars" { "[EXPERIMENTAL] " } else { "" };
        warnings.push(format!(
            "{file}:{}: '{old}' is deprecated. Please use '{new}' instead. {hint}Run 'kustomize edit fix' to update your Kustomization automatically.",
            value.line()
        ));
    }
}
