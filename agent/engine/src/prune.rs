//! What may be deleted: the object's own options, and the brake on a bundle that loses much at once.

use serde_json::Value;

use crate::{
    options::{self, SyncOptions},
    pair,
    settings::Settings,
};

/// Annotation of a person's consent to `Prune=confirm` and `Delete=confirm`.
pub const APPROVED_ANNOTATION: &str = "argocd.argoproj.io/deletion-approved";

/// Whether one object that is no longer desired may be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Allowed,
    /// `Prune=false`, or another object controls it.
    Kept,
    /// `Prune=confirm` without an approval.
    NeedsConfirmation,
}

/// Whether a live object that is no longer desired may be deleted, by its own options and the sync's.
#[must_use]
pub fn verdict(live: &Value, sync: &SyncOptions) -> Verdict {
    if pair::is_controlled(live) {
        return Verdict::Kept;
    }
    match sync.value_for(live, "Prune") {
        Some("false") => Verdict::Kept,
        Some("confirm") if !is_approved(live) => Verdict::NeedsConfirmation,
        _ => Verdict::Allowed,
    }
}

/// Whether a live object may be deleted when its application is.
#[must_use]
pub fn delete_verdict(live: &Value, sync: &SyncOptions) -> Verdict {
    if pair::is_controlled(live) {
        return Verdict::Kept;
    }
    match sync.value_for(live, "Delete") {
        Some("false") => Verdict::Kept,
        Some("confirm") if !is_approved(live) => Verdict::NeedsConfirmation,
        _ => Verdict::Allowed,
    }
}

/// Whether an object is left out of the sync status when it is not desired (`compare-options: IgnoreExtraneous`).
#[must_use]
pub fn ignores_extraneous(live: &Value) -> bool {
    windlass_protocol::manifest::annotation_has(live, "argocd.argoproj.io/compare-options", "IgnoreExtraneous")
}

/// Whether an object asks to be pruned after everything else.
#[must_use]
pub fn is_last(live: &Value, sync: &SyncOptions) -> bool {
    sync.value("PruneLast") == Some("true") || options::on_object(live, "PruneLast") == Some("true")
}

/// Whether pruning so many of so many objects at once is beyond the budget.
#[must_use]
pub const fn is_over_budget(settings: &Settings, pruned: usize, managed: usize) -> bool {
    pruned > settings.prune_budget && pruned.saturating_mul(100) > managed.saturating_mul(settings.prune_percent)
}

fn is_approved(live: &Value) -> bool {
    windlass_protocol::manifest::annotation(live, APPROVED_ANNOTATION).is_some_and(|time| !time.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn options_and_owners_keep_objects() {
        let none = SyncOptions::default();
        let with = |text: &str| json!({"metadata": {"annotations": {options::OPTIONS_ANNOTATION: text}}});
        assert_eq!(verdict(&json!({}), &none), Verdict::Allowed);
        assert_eq!(verdict(&with("Prune=false"), &none), Verdict::Kept);
        assert_eq!(verdict(&with("Prune=confirm"), &none), Verdict::NeedsConfirmation);
        assert_eq!(verdict(&json!({"metadata": {"ownerReferences": [{"controller": true}]}}), &none), Verdict::Kept);
        assert_eq!(delete_verdict(&with("Delete=false"), &none), Verdict::Kept);
    }

    #[test]
    fn the_brake_needs_number_and_share() {
        let settings = Settings::default();
        assert!(!is_over_budget(&settings, 5, 5));
        assert!(is_over_budget(&settings, 6, 6));
        assert!(!is_over_budget(&settings, 6, 12));
        assert!(is_over_budget(&settings, 7, 13));
    }
}
