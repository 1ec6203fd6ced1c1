//! A write that was acknowledged is in every replica that has applied its place in the log.

use std::collections::BTreeMap;

use windlass_hub_core::{Rejection, Reply};
use windlass_protocol::ids::RequestId;

use super::Finding;

/// Remembers acknowledged requests and where each stands in the log.
#[derive(Debug, Default)]
pub(crate) struct Acknowledged {
    places: BTreeMap<RequestId, usize>,
}

impl Acknowledged {
    /// Somebody was told that this request, applied at this index, is done.
    pub(crate) fn acknowledge(&mut self, request: RequestId, index: usize) {
        self.places.entry(request).or_insert(index);
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// A replica has applied an entry.
    pub(crate) fn applied(
        &self,
        hub: u64,
        index: usize,
        request: RequestId,
        result: &Result<Reply, Rejection>,
    ) -> Result<(), Finding> {
        match (self.places.get(&request), result) {
            (Some(place), Err(rejection)) if index >= *place => {
                Err(finding(format!("hub {hub} rejects the acknowledged {request:?} at {index}: {rejection}")))
            }
            _ => Ok(()),
        }
    }

    /// The whole log, at the end: every acknowledged request is where it was.
    pub(crate) fn in_log(&self, log: &[RequestId]) -> Result<(), Finding> {
        let lost = self.places.iter().find(|(request, place)| log.get(**place) != Some(request));
        lost.map_or(Ok(()), |(request, place)| {
            Err(finding(format!("the acknowledged {request:?} is not at {place} of the log")))
        })
    }
}

const fn finding(message: String) -> Finding {
    let source = "DESIGN.md 8: no acknowledged write lost";
    Finding { invariant: "acknowledged writes stay", source, message }
}
