//! The parts of a kustomization file: patches, generators, replacements and the like.

use std::collections::BTreeMap;

use windlass_protocol::yaml::Node;

use crate::kustomize::{
    decode::Decoder,
    fieldspec::FieldSpec,
    id::{Gvk, ResourceId},
};

/// `labels[]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Label {
    pub(crate) pairs: BTreeMap<String, String>,
    pub(crate) include_selectors: bool,
    pub(crate) include_templates: bool,
    /// Of a later release; without it, claims of a StatefulSet are labelled as templates are.
    pub(crate) include_volume_claim_templates: Option<bool>,
    pub(crate) fields: Vec<FieldSpec>,
}

impl Label {
    pub(super) fn read(decoder: &mut Decoder<'_>, node: &Node, path: &str) -> Self {
        let mut made = Self::default();
        decoder.object(node, path, |decoder, name, value, path| {
            match name {
                "pairs" => made.pairs = decoder.string_map(value, path),
                "includeSelectors" => made.include_selectors = decoder.boolean(value, path),
                "includeTemplates" => made.include_templates = decoder.boolean(value, path),
                "includeVolumeClaimTemplates" => {
                    made.include_volume_claim_templates = Some(decoder.boolean(value, path))
                }
                "fields" => made.fields = decoder.list(value, path, Decoder::field_spec),
                _ => return false,
            }
            true
        });
        made
    }
}

/// Which resources something is for; every part is an anchored regular expression, empty for any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Selector {
    pub(crate) id: ResourceId,
    pub(crate) annotation_selector: String,
    pub(crate) label_selector: String,
}

impl Selector {
    pub(in crate::kustomize) fn read(decoder: &mut Decoder<'_>, node: &Node, path: &str) -> Self {
        let mut made = Self::default();
        decoder.object(node, path, |decoder, name, value, path| {
            match name {
                "annotationSelector" => made.annotation_selector = decoder.string(value, path),
                "labelSelector" => made.label_selector = decoder.string(value, path),
                _ => return id_field(&mut made.id, decoder, name, value, path),
            }
            true
        });
        made
    }
}

fn id_field(id: &mut ResourceId, decoder: &mut Decoder<'_>, name: &str, value: &Node, path: &str) -> bool {
    let field = match name {
        "group" => &mut id.gvk.group,
        "version" => &mut id.gvk.version,
        "kind" => &mut id.gvk.kind,
        "name" => &mut id.name,
        "namespace" => &mut id.namespace,
        _ => return false,
    };
    *field = decoder.string(value, path);
    true
}

/// `patches[]` and `patchesJson6902[]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Patch {
    pub(crate) path: String,
    pub(crate) patch: String,
    pub(crate) target: Option<Selector>,
    pub(crate) options: PatchOptions,
}

/// `patches[].options`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PatchOptions {
    pub(crate) allow_name_change: bool,
    pub(crate) allow_kind_change: bool,
}

impl Patch {
    pub(in crate::kustomize) fn read(decoder: &mut Decoder<'_>, node: &Node, path: &str) -> Self {
        let mut made = Self::default();
        decoder.object(node, path, |decoder, name, value, path| {
            match name {
                "path" => made.path = decoder.string(value, path),
                "patch" => made.patch = decoder.string(value, path),
                "target" if value.is_null() => {}
                "target" => made.target = Some(Selector::read(decoder, value, path)),
                "options" => made.options = PatchOptions::read(decoder, value, path),
                _ => return false,
            }
            true
        });
        made
    }
}

impl PatchOptions {
    pub(in crate::kustomize) fn read(decoder: &mut Decoder<'_>, node: &Node, path: &str) -> Self {
        let mut made = Self::default();
        decoder.object(node, path, |decoder, name, value, path| {
            match name {
                "allowNameChange" => made.allow_name_change = decoder.boolean(value, path),
                "allowKindChange" => made.allow_kind_change = decoder.boolean(value, path),
                _ => return false,
            }
            true
        });
        made
    }
}

/// `images[]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) name: String,
    pub(crate) new_name: String,
    pub(crate) tag_suffix: String,
    pub(crate) new_tag: String,
    pub(crate) digest: String,
}

impl Image {
    pub(in crate::kustomize) fn read(decoder: &mut Decoder<'_>, node: &Node, path: &str) -> Self {
        let mut made = Self::default();
        decoder.object(node, path, |decoder, name, value, path| {
            let field = match name {
                "name" => &mut made.name,
                "newName" => &mut made.new_name,
                "tagSuffix" => &mut made.tag_suffix,
                "newTag" => &mut made.new_tag,
                "digest" => &mut made.digest,
                _ => return false,
            };
            *field = decoder.string(value, path);
            true
        });
        made
    }
}

/// `replicas[]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Replica {
    pub(crate) name: String,
    pub(crate) count: i64,
}

impl Replica {
    pub(in crate::kustomize) fn read(decoder: &mut Decoder<'_>, node: &Node, path: &str) -> Self {
        let mut made = Self::default();
        decoder.object(node, path, |decoder, name, value, path| {
            match name {
                "name" => made.name = decoder.string(value, path),
                "count" => made.count = decoder.integer(value, path),
                _ => return false,
            }
            true
        });
        made
    }
}

/// `sortOptions`; without lists, the legacy order is the built-in one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SortOptions {
    pub(crate) order: String,
    pub(crate) legacy: Option<(Vec<String>, Vec<String>)>,
}

impl SortOptions {
    pub(in crate::kustomize) fn read(decoder: &mut Decoder<'_>, node: &Node, path: &str) -> Self {
        let mut made = Self::default();
        decoder.object(node, path, |decoder, name, value, path| {
            match name {
                "order" => made.order = decoder.string(value, path),
                "legacySortOptions" if value.is_null() => {}
                "legacySortOptions" => {
                    let (mut first, mut last) = (Vec::new(), Vec::new());
                    decoder.object(value, path, |decoder, name, value, path| {
                        match name {
                            "orderFirst" => first = decoder.strings(value, path),
                            "orderLast" => last = decoder.strings(value, path),
                            _ => return false,
                        }
                        true
                    });
                    made.legacy = Some((first, last));
                }
                _ => return false,
            }
            true
        });
        made
    }
}

/// `generatorOptions` and `options` of a generator.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct GeneratorOptions {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) disable_name_suffix_hash: bool,
    pub(crate) immutable: bool,
}

impl GeneratorOptions {
    pub(in crate::kustomize) fn read(decoder: &mut Decoder<'_>, node: &Node, path: &str) -> Self {
        let mut made = Self::default();
        decoder.object(node, path, |decoder, name, value, path| {
            match name {
                "labels" => made.labels = decoder.string_map(value, path),
                "annotations" => made.annotations = decoder.string_map(value, path),
                "disableNameSuffixHash" => made.disable_name_suffix_hash = decoder.boolean(value, path),
                "immutable" => made.immutable = decoder.boolean(value, path),
                _ => return false,
            }
            true
        });
        made
    }
}

/// `configMapGenerator[]` and `secretGenerator[]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Generator {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) behavior: String,
    pub(crate) literals: Vec<String>,
    pub(crate) files: Vec<String>,
    pub(crate) envs: Vec<String>,
    pub(crate) options: Option<GeneratorOptions>,
    /// Type of a Secret.
    pub(crate) secret_type: String,
}

impl Generator {
    pub(in crate::kustomize) fn read_config_map(decoder: &mut Decoder<'_>, node: &Node, path: &str) -> Self {
        let mut made = Self::default();
        let mut env = String::new();
        decoder.object(node, path, |decoder, name, value, path| made.field(&mut env, decoder, name, value, path));
        made.with_env(env)
    }

    pub(in crate::kustomize) fn read_secret(decoder: &mut Decoder<'_>, node: &Node, path: &str) -> Self {
        let mut made = Self::default();
        let mut env = String::new();
        decoder.object(node, path, |decoder, name, value, path| {
            if name == "type" {
                made.secret_type = decoder.string(value, path);
                return true;
            }
            made.field(&mut env, decoder, name, value, path)
        });
        made.with_env(env)
    }

    fn field(&mut self, env: &mut String, decoder: &mut Decoder<'_>, name: &str, value: &Node, path: &str) -> bool {
        match name {
            "namespace" => self.namespace = decoder.string(value, path),
            "name" => self.name = decoder.string(value, path),
            "behavior" => self.behavior = decoder.string(value, path),
            "literals" => self.literals = decoder.strings(value, path),
            "files" => self.files = decoder.strings(value, path),
            "envs" => self.envs = decoder.strings(value, path),
            "env" => *env = decoder.string(value, path),
            "options" if value.is_null() => {}
            "options" => self.options = Some(GeneratorOptions::read(decoder, value, path)),
            _ => return false,
        }
        true
    }

    fn with_env(mut self, env: String) -> Self {
        if !env.is_empty() {
            self.envs.push(env);
        }
        self
    }
}

/// `replacements[]`: inline, or a file of some.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ReplacementField {
    pub(crate) path: String,
    pub(crate) replacement: Replacement,
}

/// A value from one resource that is written into others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Replacement {
    pub(crate) source: Option<Source>,
    pub(crate) source_value: Option<String>,
    /// `None` when the field is missing.
    pub(crate) targets: Option<Vec<Target>>,
}

/// Where a replacement's value comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) id: ResourceId,
    pub(crate) field_path: String,
    pub(crate) options: Option<FieldOptions>,
}

/// Where a replacement's value goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) select: Option<Selector>,
    pub(crate) reject: Vec<Selector>,
    pub(crate) field_paths: Vec<String>,
    pub(crate) options: Option<FieldOptions>,
}

/// Options of a source or target field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FieldOptions {
    pub(crate) delimiter: String,
    pub(crate) index: i64,
    pub(crate) create: bool,
}

impl ReplacementField {
    pub(in crate::kustomize) fn read(decoder: &mut Decoder<'_>, node: &Node, path: &str) -> Self {
        let mut made = Self::default();
        decoder.object(node, path, |decoder, name, value, path| {
            if name == "path" {
                made.path = decoder.string(value, path);
                return true;
            }
            made.replacement.field(decoder, name, value, path)
        });
        made
    }
}

impl Replacement {
    pub(in crate::kustomize) fn read(decoder: &mut Decoder<'_>, node: &Node, path: &str) -> Self {
        let mut made = Self::default();
        decoder.object(node, path, |decoder, name, value, path| made.field(decoder, name, value, path));
        made
    }

    fn field(&mut self, decoder: &mut Decoder<'_>, name: &str, value: &Node, path: &str) -> bool {
        match name {
            "source" | "sourceValue" | "targets" if value.is_null() => {}
            "source" => self.source = Some(Source::read(decoder, value, path)),
            "sourceValue" => self.source_value = Some(decoder.string(value, path)),
            "targets" => self.targets = Some(decoder.list(value, path, Target::read)),
            _ => return false,
        }
        true
    }
}

impl Source {
    fn read(decoder: &mut Decoder<'_>, node: &Node, path: &str) -> Self {
        let mut made = Self::default();
        decoder.object(node, path, |decoder, name, value, path| {
            match name {
                "fieldPath" => made.field_path = decoder.string(value, path),
                "options" if value.is_null() => {}
                "options" => made.options = Some(FieldOptions::read(decoder, value, path)),
                _ => return id_field(&mut made.id, decoder, name, value, path),
            }
            true
        });
        made
    }
}

impl Target {
    fn read(decoder: &mut Decoder<'_>, node: &Node, path: &str) -> Self {
        let mut made = Self::default();
        decoder.object(node, path, |decoder, name, value, path| {
            match name {
                "select" | "options" if value.is_null() => {}
                "select" => made.select = Some(Selector::read(decoder, value, path)),
                "reject" => made.reject = decoder.list(value, path, Selector::read),
                "fieldPaths" => made.field_paths = decoder.strings(value, path),
                "options" => made.options = Some(FieldOptions::read(decoder, value, path)),
                _ => return false,
            }
            true
        });
        made
    }
}

impl FieldOptions {
    fn read(decoder: &mut Decoder<'_>, node: &Node, path: &str) -> Self {
        let mut made = Self::default();
        decoder.object(node, path, |decoder, name, value, path| {
            match name {
                "delimiter" => made.delimiter = decoder.string(value, path),
                "index" => made.index = decoder.integer(value, path),
                // Accepted and without effect, as in Kustomize.
                "encoding" => drop(decoder.string(value, path)),
                "create" => made.create = decoder.boolean(value, path),
                _ => return false,
            }
            true
        });
        made
    }
}

/// `vars[]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Variable {
    pub(crate) name: String,
    pub(crate) object: ResourceId,
    pub(crate) field_path: String,
}

impl Variable {
    pub(in crate::kustomize) fn read(decoder: &mut Decoder<'_>, node: &Node, path: &str) -> Self {
        let mut made = Self { field_path: "metadata.name".to_owned(), ..Self::default() };
        let mut api_version = String::new();
        decoder.object(node, path, |decoder, name, value, path| {
            match name {
                "name" => made.name = decoder.string(value, path),
                "objref" => decoder.object(value, path, |decoder, name, value, path| {
                    if name == "apiVersion" {
                        api_version = decoder.string(value, path);
                        return true;
                    }
                    id_field(&mut made.object, decoder, name, value, path)
                }),
                "fieldref" => decoder.object(value, path, |decoder, name, value, path| {
                    if name == "fieldPath" && !value.is_null() {
                        made.field_path = decoder.string(value, path);
                    }
                    name == "fieldPath"
                }),
                _ => return false,
            }
            true
        });
        if !api_version.is_empty() {
            let kind = std::mem::take(&mut made.object.gvk.kind);
            made.object.gvk = Gvk::new(&api_version, &kind);
        }
        made
    }
}

/// `metadata` is allowed and without effect; only its types are checked.
pub(super) fn metadata(decoder: &mut Decoder<'_>, node: &Node, path: &str) {
    decoder.object(node, path, |decoder, name, value, path| {
        match name {
            "name" | "namespace" => drop(decoder.string(value, path)),
            "labels" | "annotations" => drop(decoder.string_map(value, path)),
            _ => return false,
        }
        true
    });
}
