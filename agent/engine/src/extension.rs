//! What runs outside of this crate: Lua health overrides and jq path expressions, behind one trait.

use std::fmt::Debug;

use serde_json::Value;
use windlass_protocol::status::Health;

/// Interpreters that a shell may supply. Both calls must be deterministic and bounded in time and memory.
pub trait Extension: Debug + Send + Sync {
    /// A health override for this live object; `None` leaves it to the built-in rule.
    fn health(&self, live: &Value) -> Option<Health>;

    /// Deletes what a jq path expression selects.
    ///
    /// # Errors
    /// The expression cannot be run; in words, for a condition.
    fn delete_paths(&self, expression: &str, object: &mut Value) -> Result<(), String>;
}

/// No interpreter: overrides do not exist, path expressions are reported as a condition.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoExtension;

impl Extension for NoExtension {
    fn health(&self, _live: &Value) -> Option<Health> {
        None
    }

    fn delete_paths(&self, _expression: &str, _object: &mut Value) -> Result<(), String> {
        Err("jqPathExpressions are not supported by this agent".to_owned())
    }
}
