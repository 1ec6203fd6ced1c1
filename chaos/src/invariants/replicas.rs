//! Replicas at the same applied index have equal answers and equal states.

use std::collections::BTreeMap;

use windlass_hub_core::{Rejection, Reply, State, snapshot};
use windlass_protocol::ids::Digest;

use super::Finding;

/// Every state is hashed at multiples of this; answers are compared at each entry.
const HASH_EVERY: usize = 8;

/// The first answer and hash seen at each index.
#[derive(Debug, Default)]
pub(crate) struct Replicas {
    answers: BTreeMap<usize, (u64, Result<Reply, Rejection>)>,
    hashes: BTreeMap<usize, (u64, Digest)>,
}

impl Replicas {
    /// A replica has applied the entry at `index`.
    pub(crate) fn applied(
        &mut self,
        hub: u64,
        index: usize,
        result: &Result<Reply, Rejection>,
        state: &State,
    ) -> Result<(), Finding> {
        let (first, answer) = self.answers.entry(index).or_insert_with(|| (hub, result.clone()));
        if answer != result {
            return Err(finding(format!("entry {index}: hub {first} answers {answer:?}, hub {hub} {result:?}")));
        }
        if index.is_multiple_of(HASH_EVERY) { self.equal(hub, index, state) } else { Ok(()) }
    }

    /// Compares the state of a replica that has applied everything up to `index`.
    pub(crate) fn equal(&mut self, hub: u64, index: usize, state: &State) -> Result<(), Finding> {
        let hash = snapshot::hash(state);
        let (first, known) = self.hashes.entry(index).or_insert((hub, hash));
        if *known == hash {
            return Ok(());
        }
        Err(finding(format!("after entry {index}: hub {first} has {}, hub {hub} {}", known.short(), hash.short())))
    }
}

const fn finding(message: String) -> Finding {
    let source = "DESIGN.md 4: every replica computes the same bytes";
    Finding { invariant: "replicas are equal", source, message }
}
