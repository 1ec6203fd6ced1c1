//! What goes wrong in a simulated cluster, and how long things take in it.

use std::collections::BTreeMap;

use windlass_protocol::{manifest::ResourceKey, time::Millis};

use crate::action::{Failure, FailureReason};

/// What goes wrong. All fields may be changed at any time.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// The API server does not answer; with this message.
    pub down: Option<String>,
    /// How long the shell should take for each request.
    pub latency: Millis,
    /// Writes of (kind, name) are refused with a message.
    pub rejections: BTreeMap<(String, String), String>,
}

impl Faults {
    /// Refuses every write of the objects with this kind and name.
    pub fn reject(&mut self, kind: &str, name: &str, message: &str) {
        self.rejections.insert((kind.to_owned(), name.to_owned()), message.to_owned());
    }

    /// Accepts them again.
    pub fn accept(&mut self, kind: &str, name: &str) {
        self.rejections.remove(&(kind.to_owned(), name.to_owned()));
    }

    pub(super) fn check(&self, key: &ResourceKey) -> Result<(), Failure> {
        match self.rejections.get(&(key.kind.clone(), key.name.clone())) {
            Some(message) => Err(Failure::new(FailureReason::Rejected, message)),
            None => Ok(()),
        }
    }
}

/// How long things take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delays {
    /// From a pod's creation to its readiness.
    pub ready: Millis,
    /// From a job's creation to its end.
    pub job: Millis,
    /// From a definition's creation until its kind is served.
    pub crd: Millis,
    /// Until a load balancer, an ingress or a volume is there.
    pub provision: Millis,
    /// `progressDeadlineSeconds` of Deployments that do not say.
    pub progress_deadline: Millis,
}

impl Default for Delays {
    fn default() -> Self {
        Self {
            ready: Millis(400),
            job: Millis(400),
            crd: Millis(100),
            provision: Millis(200),
            progress_deadline: Millis(600_000),
        }
    }
}

/// An image with this word in its name never becomes ready, and a job with it fails.
pub(super) const BAD_IMAGE: &str = "bad";
