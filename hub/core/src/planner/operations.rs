//! Operations that people ask for by writing `operation` into an Application, and refreshes by annotation.

use std::sync::Arc;

use windlass_protocol::{
    ids::{NamespacedName, OperationId},
    json,
    manifest::ResourceKey,
    message::{BundleRef, Operation},
    resource::{ApplicationOperation, Kind, REFRESH_ANNOTATION, parse},
};

use crate::state::{ObjectRecord, State};

/// What is asked of an Application.
#[derive(Clone, Debug)]
pub enum Asked {
    /// A sync.
    Operation {
        /// The Application.
        application: NamespacedName,
        /// Its record.
        record: Arc<ObjectRecord>,
        /// The request, or what is wrong with it.
        operation: Result<Box<ApplicationOperation>, String>,
    },
    /// A fresh comparison.
    Refresh {
        /// The Application.
        application: NamespacedName,
        /// Its record.
        record: Arc<ObjectRecord>,
        /// Forget cached discovery too.
        hard: bool,
    },
}

/// Everything that is asked for and not yet begun.
#[must_use]
pub fn asked(state: &State) -> Vec<Asked> {
    let mut found = Vec::new();
    for (key, record) in state.objects(Kind::Application, None).filter(|(_, record)| !record.deleting) {
        // A look at the text spares parsing 100,000 objects; the parsed object decides.
        let candidate = record.body.contains("\"operation\":{") || record.body.contains(REFRESH_ANNOTATION);
        if !candidate {
            continue;
        }
        let value = record.value();
        if let Some(operation) = value.get("operation").filter(|operation| operation.is_object()) {
            let parsed = parse::<ApplicationOperation>("operation", operation);
            let operation = parsed.map(|parsed| Box::new(parsed.value)).map_err(|error| error.to_string());
            found.push(Asked::Operation { application: key.name.clone(), record: Arc::clone(record), operation });
        }
        let refresh = json::text(&value, &["metadata", "annotations", REFRESH_ANNOTATION]);
        if !refresh.is_empty() {
            let hard = refresh == "hard";
            found.push(Asked::Refresh { application: key.name.clone(), record: Arc::clone(record), hard });
        }
    }
    found
}

/// The numbered operation for a request; `bundle` if it asks for another revision than the target.
#[must_use]
pub fn operation(asked: &ApplicationOperation, bundle: Option<BundleRef>) -> Operation {
    let sync = asked.sync.clone().unwrap_or_default();
    let force = sync.sync_strategy.as_ref().is_some_and(|strategy| {
        ["apply", "hook"].iter().any(|kind| json::at(strategy, &[kind, "force"]).is_some_and(|force| force == true))
    });
    let resources = sync.resources.into_iter().map(|resource| ResourceKey {
        group: resource.group,
        kind: resource.kind,
        namespace: resource.namespace,
        name: resource.name,
    });
    Operation {
        id: OperationId::ZERO,
        bundle,
        prune: sync.prune,
        dry_run: sync.dry_run,
        force,
        resources: resources.collect(),
        sync_options: sync.sync_options,
        terminate: false,
        initiated_by: asked.initiated_by.clone().unwrap_or_default().username,
    }
}
