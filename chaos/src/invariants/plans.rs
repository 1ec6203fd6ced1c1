//! What a planner proposes is applied only while what it saw still holds: policy and place of an assignment follow the spec that
//! stands in the state at that index.

use windlass_hub_core::{Command, Envelope, ObjectKey, State};
use windlass_protocol::resource::{ApplicationSpec, Kind, parse};

use super::Finding;

/// Compares each plan with the objects at the moment in which it is applied.
#[derive(Debug)]
pub(crate) struct Plans;

impl Plans {
    /// A command was applied with success.
    pub(crate) fn applied(envelope: &Envelope, state: &State) -> Result<(), Finding> {
        let Command::Targets { changes, .. } = &envelope.command else { return Ok(()) };
        // What does not resolve changes nothing but conditions.
        for change in changes.iter().filter(|change| change.cluster.is_some()) {
            let name = &change.application;
            let key = ObjectKey { kind: Kind::Application, name: name.clone() };
            let Some(object) = state.object(&key).filter(|object| object.uid == change.uid && !object.deleting) else {
                continue;
            };
            let Some(record) = state.assignment(name) else { continue };
            let value = object.value();
            let spec = value.get("spec").cloned().unwrap_or_default();
            let Ok(spec) = parse::<ApplicationSpec>("spec", &spec).map(|parsed| parsed.value) else { continue };
            let wanted = spec.automated().map(|it| (it.prune, it.self_heal));
            let planned = record.policy.automated.map(|it| (it.prune, it.self_heal));
            if wanted != planned || spec.destination.namespace != record.namespace {
                return Err(Finding {
                    invariant: "plans fit what they are applied to",
                    source: "DESIGN.md 4: a wrong planner on a wrong leader can only be refused",
                    message: format!(
                        "{name}: automated (prune, selfHeal) is {wanted:?} in the spec and {planned:?} in the assignment that was \
                         just planned"
                    ),
                });
            }
        }
        Ok(())
    }
}
