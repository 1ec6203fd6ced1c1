//! The Kustomize engine: `kustomize build` of version 5.8, in process.
//!
//! Each file is parsed once into nodes that keep style and type; every step edits those nodes, and JSON values are
//! made only at the end. Modules follow Kustomize's own seams:
//!
//! - `file`, `decode`: the kustomization file; `config`: which fields transformers act on
//! - `build`: the recursion and the order of steps; `plugin`: built-in plugins configured by resources
//! - `resource`, `id`, `resource_map`: identities, their history, and what is where
//! - `transform`, `generator`, `replacement`, `variables`, `name_reference`, `hash`, `sort`: the steps
//! - `merge`, `json_patch`, `schema`: patches; `fields`, `fieldspec`, `path_match`: walks over nodes
//!
//! It never follows a link out of the tree, fetches nothing and runs nothing.

mod build;
mod build_annotations;
mod config;
mod decode;
mod fields;
mod fieldspec;
pub(crate) mod file;
mod generator;
mod hash;
pub(crate) mod id;
mod json_patch;
mod json_text;
mod merge;
mod name_reference;
mod origin;
mod path_match;
mod plugin;
mod replacement;
mod resource;
mod resource_map;
mod schema;
mod selector;
mod sort;
mod transform;
mod variables;
mod yaml_text;

use serde_json::Value;
use windlass_protocol::yaml::{self, Dialect, Node};

use self::{
    build::Build,
    file::Kustomization,
    origin::transformations_yaml,
    resource::{Resource, set_metadata_map},
    resource_map::ResourceMap,
};
use crate::{
    error::{Problem, RenderError},
    limits::Limits,
    reader::Reader,
    tree::Tree,
};

/// The version whose output is reproduced; it goes into the `managedByLabel`.
const VERSION: &str = "v5.8.1";

/// The flags of `kustomize build` that matter here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KustomizeFlags {
    /// `--load-restrictor`
    pub load_restrictions: LoadRestrictions,
    /// `--reorder`
    pub reorder: Reorder,
    /// `--enable-managedby-label`
    pub managed_by_label: bool,
}

/// Where files named by a kustomization may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LoadRestrictions {
    /// In or below the directory of the kustomization.
    #[default]
    RootOnly,
    /// Anywhere in the tree.
    None,
}

/// The order of the output, unless the kustomization has `sortOptions`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reorder {
    /// The command line's default, which is legacy.
    #[default]
    Unspecified,
    /// By kind.
    Legacy,
    /// As read.
    None,
}

/// The result of a build.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Built {
    /// The manifests in their order.
    pub manifests: Vec<Value>,
    /// What its author should know: deprecated fields, merged keys, unused variables.
    pub warnings: Vec<String>,
}

impl Built {
    /// What `kustomize build` writes to its standard output, byte for byte.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        yaml::to_yaml_documents(&self.manifests)
    }
}

/// Builds the kustomization in the directory `path`.
///
/// # Errors
/// Everything that makes `kustomize build` fail, and exceeded limits; every problem names its file, and its line or
/// field where there is one.
pub fn kustomize_build(
    tree: &dyn Tree,
    path: &str,
    options: &KustomizeFlags,
    limits: &Limits,
) -> Result<Built, RenderError> {
    let mut reader = Reader::new(tree, limits);
    let path = crate::path::join("", path)?;
    let manifests = build_adjusted(&mut reader, &path, options, &mut |_, _| Ok(()))?;
    Ok(Built { manifests, warnings: reader.warnings })
}

/// Name, tag and digest of an image.
pub(crate) fn split_image(image: &str) -> (&str, &str, &str) {
    transform::split_image(image)
}

/// Builds with changes to the root kustomization, as `kustomize edit` would make them.
pub(crate) fn build_adjusted(
    reader: &mut Reader<'_>,
    path: &str,
    flags: &KustomizeFlags,
    adjust: &mut dyn FnMut(&mut Kustomization, &mut Reader<'_>) -> Result<(), Problem>,
) -> Result<Vec<Value>, RenderError> {
    let mut build = Build::new(reader, flags);
    let (mut map, kustomization) = build.run(path, adjust)?;
    match (&kustomization.sort_options, flags.reorder) {
        (Some(options), _) => sort::by_options(&mut map, options)?,
        (None, Reorder::Legacy | Reorder::Unspecified) => sort::legacy(&mut map),
        (None, Reorder::None) => {}
    }
    let metadata = |option: &str| kustomization.build_metadata.iter().any(|known| known == option);
    let finish = Finish {
        managed_by: flags.managed_by_label || metadata("managedByLabel"),
        origins: metadata("originAnnotations"),
        transformations: metadata("transformerAnnotations"),
    };
    finish.all(map)
}

struct Finish {
    managed_by: bool,
    origins: bool,
    transformations: bool,
}

impl Finish {
    fn all(&self, map: ResourceMap) -> Result<Vec<Value>, RenderError> {
        let mut values = Vec::with_capacity(map.list.len());
        for mut resource in map.list {
            self.annotate(&mut resource)?;
            let value = resource
                .node
                .to_value(Dialect::Kyaml)
                .map_err(|error| Problem::object(format!("{}: {}", resource.id, error.kind)).at_line(error.line))?;
            values.push(value);
        }
        Ok(values)
    }

    /// Removes what only the build needed, adds what `buildMetadata` asks for, and makes annotations strings.
    fn annotate(&self, resource: &mut Resource) -> Result<(), Problem> {
        if self.managed_by {
            let label = Node::string(format!("kustomize-{VERSION}"));
            let metadata = fields::child_mapping(&mut resource.node, "metadata")?;
            let labels = fields::child_mapping(metadata, "labels")?;
            if labels.is_null() {
                *labels = Node::Mapping(Vec::new());
            }
            fields::set_field(labels, "app.kubernetes.io/managed-by", label)?;
        }
        let mut annotations = resource.annotations();
        annotations.retain(|name, _| !build_annotations::is_build_annotation(name));
        if self.origins {
            if let Some(origin) = &resource.origin {
                annotations.insert(build_annotations::ORIGIN.to_owned(), origin.to_yaml());
            }
        } else {
            annotations.remove(build_annotations::ORIGIN);
        }
        if self.transformations {
            if !resource.transformations.is_empty() {
                let text = transformations_yaml(&resource.transformations);
                annotations.insert(build_annotations::TRANSFORMATIONS.to_owned(), text);
            }
        } else {
            annotations.remove(build_annotations::TRANSFORMATIONS);
        }
        set_metadata_map(&mut resource.node, "annotations", &annotations)
    }
}
