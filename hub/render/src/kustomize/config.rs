//! Where each transformer acts, and which fields refer to which names: Kustomize's transformer configuration.

mod decode;
mod defaults;

use std::sync::{Arc, LazyLock};

use super::{
    fieldspec::{FieldSpec, FieldSpecs},
    id::Gvk,
    sort,
};
use crate::error::Problem;

pub(super) use self::decode::{from_bytes, from_crds};

/// The configuration of one kustomization and those below it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Config {
    pub(super) name_prefix: FieldSpecs,
    pub(super) name_suffix: FieldSpecs,
    pub(super) namespace: FieldSpecs,
    pub(super) common_labels: FieldSpecs,
    pub(super) labels: FieldSpecs,
    pub(super) template_labels: FieldSpecs,
    pub(super) common_annotations: FieldSpecs,
    pub(super) name_reference: Vec<NameReference>,
    pub(super) var_reference: FieldSpecs,
    pub(super) images: FieldSpecs,
    pub(super) replicas: FieldSpecs,
}

/// Fields that hold the name of a resource of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct NameReference {
    pub(super) target: Gvk,
    pub(super) referrers: FieldSpecs,
}

static DEFAULT: LazyLock<Arc<Config>> = LazyLock::new(|| {
    let mut config = defaults::config();
    config.sort();
    Arc::new(config)
});

impl Config {
    /// The configuration every kustomization starts from; one copy for all.
    pub(super) fn built_in() -> Arc<Self> {
        Arc::clone(&DEFAULT)
    }

    /// Adds what `other` knows beyond this.
    pub(super) fn merge(&mut self, other: &Self) -> Result<(), Problem> {
        let name =
            |field: &'static str| move |problem: Problem| problem.while_(format!("failed to merge {field} fieldSpec"));
        self.name_prefix.merge(&other.name_prefix).map_err(name("NamePrefix"))?;
        self.name_suffix.merge(&other.name_suffix).map_err(name("NameSuffix"))?;
        self.namespace.merge(&other.namespace).map_err(name("NameSpace"))?;
        self.common_annotations.merge(&other.common_annotations).map_err(name("CommonAnnotations"))?;
        self.common_labels.merge(&other.common_labels).map_err(name("CommonLabels"))?;
        self.labels.merge(&other.labels).map_err(name("Labels"))?;
        self.template_labels.merge(&other.template_labels).map_err(name("TemplateLabels"))?;
        self.var_reference.merge(&other.var_reference).map_err(name("VarReference"))?;
        for reference in &other.name_reference {
            self.add_name_reference(reference).map_err(name("NameReference"))?;
        }
        self.images.merge(&other.images).map_err(name("Images"))?;
        self.replicas.merge(&other.replicas).map_err(name("Replicas"))?;
        self.sort();
        Ok(())
    }

    /// Sorts everything by kind. The order matters: a spec for one kind comes before one for all kinds, and then takes
    /// its place when the list is merged into an empty one.
    pub(super) fn sort(&mut self) {
        for specs in [
            &mut self.name_prefix,
            &mut self.name_suffix,
            &mut self.namespace,
            &mut self.common_labels,
            &mut self.labels,
            &mut self.template_labels,
            &mut self.common_annotations,
            &mut self.var_reference,
            &mut self.images,
            &mut self.replicas,
        ] {
            specs.0.sort_by(|left, right| sort::by_kind(&left.gvk, &right.gvk));
        }
        self.name_reference.sort_by(|left, right| sort::by_kind(&left.target, &right.target));
    }

    pub(super) fn add_name_reference(&mut self, reference: &NameReference) -> Result<(), Problem> {
        match self.name_reference.iter_mut().find(|known| known.target == reference.target) {
            Some(known) => known.referrers.merge(&reference.referrers),
            None => {
                self.name_reference.push(reference.clone());
                Ok(())
            }
        }
    }
}

/// Merges `other` into what has been gathered so far, without a copy when nothing but the built-in one is involved.
pub(super) fn merge_shared(config: &mut Option<Arc<Config>>, other: &Arc<Config>) -> Result<(), Problem> {
    match config {
        Some(known) if Arc::ptr_eq(known, other) => Ok(()),
        Some(known) => Arc::make_mut(known).merge(other),
        None if Arc::ptr_eq(other, &DEFAULT) => {
            *config = Some(Arc::clone(other));
            Ok(())
        }
        None => {
            let mut merged = Config::default();
            merged.merge(other)?;
            *config = Some(Arc::new(merged));
            Ok(())
        }
    }
}

/// A field spec of a kind in any group and version.
fn of_kind(kind: &str, path: impl Into<String>, create: bool) -> FieldSpec {
    FieldSpec::new(Gvk { kind: kind.to_owned(), ..Gvk::default() }, path, create)
}
