//! A Rollout never succeeds on zero proven members, unless all of its members are manual or superseded.

use windlass_hub_core::{State, state::MemberState};
use windlass_protocol::resource::RolloutPhase;

use super::Finding;

/// Looks at all Rollouts of a state.
#[derive(Debug)]
pub(crate) struct Rollouts;

impl Rollouts {
    pub(crate) fn in_state(state: &State) -> Result<(), Finding> {
        for (name, rollout) in state.rollouts().filter(|(_, rollout)| rollout.phase == RolloutPhase::Succeeded) {
            let proven = rollout.done.values().any(|member| *member == MemberState::Proven);
            let excused = |member: &MemberState| matches!(member, MemberState::Manual | MemberState::Superseded);
            let members: usize = rollout.spec.steps.iter().map(|step| step.members.len()).sum();
            let all_excused = members > 0 && rollout.done.len() >= members && rollout.done.values().all(excused);
            if !proven && !all_excused {
                return Err(Finding {
                    invariant: "rollouts succeed on receipts",
                    source: "DESIGN.md 5: a step completes only on receipts, never on zero",
                    message: format!("{name} succeeded with {:?} of {members} members", rollout.done),
                });
            }
        }
        Ok(())
    }
}
