//! The numbers and rules that hold for all assignments of one agent, each with its default and why.

use std::sync::Arc;

use serde_json::Value;
use windlass_protocol::time::Millis;

use crate::extension::{Extension, NoExtension};

/// What a [`crate::Reconciler`] shares with the others of its shell.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Numbers and rules.
    pub settings: Settings,
    /// Interpreters.
    pub extension: Arc<dyn Extension>,
}

impl Default for Environment {
    fn default() -> Self {
        Self { settings: Settings::default(), extension: Arc::new(NoExtension) }
    }
}

/// Numbers and rules.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Actions under way at once for one assignment. 16 keeps a small API server responsive.
    pub concurrency: usize,
    /// Pause between two waves, so that controllers can see the first (Argo CD: 2 s).
    pub wave_delay: Millis,
    /// Wait before a second heal of the same object (Argo CD's self-heal backoff starts at 2 s).
    pub heal_initial: Millis,
    /// No wait between heals is longer.
    pub heal_max: Millis,
    /// After this long without a heal an object counts as calm again.
    pub heal_cooldown: Millis,
    /// First wait after an unavailable API server; doubles.
    pub unavailable_initial: Millis,
    /// No wait for the API server is longer.
    pub unavailable_max: Millis,
    /// How long an operation waits for a CRD to be served before its custom resources fail.
    pub crd_timeout: Millis,
    /// The brake: a sync that prunes more than this many objects ...
    pub prune_budget: usize,
    /// ... and more than this share of what is managed needs an approval.
    pub prune_percent: usize,
    /// Differing fields kept per object, for messages.
    pub differences_max: usize,
    /// System-level `ignoreDifferences[]` (group, kind, jsonPointers, ...), as JSON.
    pub ignore_differences: Vec<Value>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            concurrency: 16,
            wave_delay: Millis(2_000),
            heal_initial: Millis(2_000),
            heal_max: Millis(300_000),
            heal_cooldown: Millis(330_000),
            unavailable_initial: Millis(500),
            unavailable_max: Millis(30_000),
            crd_timeout: Millis(60_000),
            prune_budget: 5,
            prune_percent: 50,
            differences_max: 20,
            ignore_differences: Vec::new(),
        }
    }
}
