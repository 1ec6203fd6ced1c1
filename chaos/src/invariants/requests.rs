//! A request id is applied once: a repetition gets the first answer, changes nothing, and has no effects.

use std::collections::BTreeMap;

use windlass_hub_core::{Rejection, Reply, apply::Applied};
use windlass_protocol::ids::{RequestId, StateRevision};

use super::Finding;

/// The first answer to each request.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    answers: BTreeMap<RequestId, (usize, Result<Reply, Rejection>)>,
}

impl Requests {
    /// A replica has applied an entry; `before` and `after` are its revisions around it.
    pub(crate) fn applied(
        &mut self,
        index: usize,
        request: RequestId,
        applied: &Applied,
        (before, after): (StateRevision, StateRevision),
    ) -> Result<(), Finding> {
        let (first, answer) = self.answers.entry(request).or_insert_with(|| (index, applied.result.clone()));
        if *first == index {
            return Ok(());
        }
        let repeated = *answer == applied.result && before == after && applied.effects.is_empty();
        if repeated {
            return Ok(());
        }
        Err(Finding {
            invariant: "requests are applied once",
            source: "DESIGN.md 4: apply remembers request ids",
            message: format!("{request:?} of entry {first} is applied again at {index}: revision {before} to {after}"),
        })
    }
}
