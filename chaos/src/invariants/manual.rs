//! An Application that is not automated is untouched until an operation: every write belongs to an operation that is on the
//! agent's disk, and an automatic one only where the log has made the assignment automated.

use windlass_engine::resume::{Cause, ResumePoint};

use super::Finding;
use crate::sim::{History, Key};

/// Judges each write by an agent.
#[derive(Debug)]
pub(crate) struct Manual;

impl Manual {
    /// An agent writes an object for an assignment whose resume point on disk is this.
    pub(crate) fn written(history: &History, key: &Key, resume: Option<&ResumePoint>) -> Result<(), Finding> {
        let (application, uid) = key;
        let finding = |why: String| {
            let message = format!("{application} ({uid}) is written: {why}");
            let source = "DESIGN.md 4: without automated, nothing is applied until an Operation";
            Err(Finding { invariant: "manual applications are untouched", source, message })
        };
        let Some(running) = resume.and_then(|resume| resume.running.as_ref()) else {
            return finding("no operation is on the disk".to_owned());
        };
        match &running.cause {
            Cause::Asked(operation) if history.has_operation(uid, operation.id) => Ok(()),
            Cause::Asked(operation) => finding(format!("operation {} was never asked for", operation.id)),
            Cause::Automatic | Cause::Heal(_) if history.was_automated(uid) => Ok(()),
            Cause::Automatic | Cause::Heal(_) => finding("it was never automated".to_owned()),
        }
    }
}
