//! Every limit of the agent, with its default, its range and why it is what it is. Refused by name when out of range.
//!
//! Never enforces anything itself: the door where a thing enters does.

use std::{collections::BTreeMap, time::Duration};

/// A limit that is unknown or out of its range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// No limit has this name.
    #[error("there is no limit named {0:?} (known: {1})")]
    Unknown(String, String),
    /// The value is outside of what the program was built for.
    #[error("limit {name} must be between {min} and {max}, not {value}")]
    Range {
        /// The limit.
        name: &'static str,
        /// The refused value.
        value: u64,
        /// Smallest accepted value.
        min: u64,
        /// Largest accepted value.
        max: u64,
    },
}

macro_rules! limits {
    ($($(#[$doc:meta])* $name:ident: $default:literal, $min:literal ..= $max:literal;)+) => {
        /// The limits in force. Names are those of the configuration file (`[limits]`) and, in upper case, of
        /// `WINDLASS_AGENT_LIMIT_<NAME>`.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Limits {
            $($(#[$doc])* pub $name: u64,)+
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($name: $default,)+ }
            }
        }

        impl Limits {
            /// All names, in the order of the documentation.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name)),+];

            /// Sets one limit by name.
            ///
            /// # Errors
            /// Unknown names and values out of range.
            pub fn set(&mut self, name: &str, value: u64) -> Result<(), LimitError> {
                match name {
                    $(stringify!($name) => {
                        if !($min..=$max).contains(&value) {
                            return Err(LimitError::Range { name: stringify!($name), value, min: $min, max: $max });
                        }
                        self.$name = value;
                    })+
                    other => return Err(LimitError::Unknown(other.to_owned(), Self::NAMES.join(", "))),
                }
                Ok(())
            }
        }
    };
}

limits! {
    /// Bytes of one manifest. 3 MiB: what an API server accepts in a request body.
    manifest_bytes: 3_145_728, 1024..=16_777_216;
    /// Resources of one bundle; the diff of 10,000 objects is some hundred milliseconds.
    bundle_resources: 10_000, 1..=100_000;
    /// Bytes of all manifests of one bundle: bounds what one assignment can pin in memory.
    bundle_bytes: 67_108_864, 1024..=1_073_741_824;
    /// Assignments of this cluster.
    assignments: 1_000, 1..=10_000;
    /// Receipts that wait for the hub. Beyond it the oldest of an assignment that has a newer one is dropped.
    receipt_queue: 10_000, 16..=1_000_000;
    /// Bytes of receipts and details that wait for the hub.
    receipt_queue_bytes: 16_777_216, 65_536..=1_073_741_824;
    /// Seconds between two details of one assignment, unless an operation ended: a detail enters Raft each time.
    detail_interval_seconds: 10, 1..=3600;
    /// Seconds of silence after which the agent pings its hub; three of them, and it looks for another hub. Raise it
    /// where traffic is paid for: a ping and its answer are about 80 bytes.
    keep_alive_seconds: 5, 1..=15;
    /// Requests to the API server under way at once. kube has no client-side rate limit of its own; 16 keeps a
    /// burst of applies from starving other clients of a small control plane.
    api_requests: 16, 1..=256;
    /// Seconds after which a request to the API server has failed. Watches have `watch_seconds`.
    api_request_seconds: 30, 1..=600;
    /// Objects per page of a list. Smaller pages cost round trips, larger ones memory on both sides.
    list_page: 250, 10..=5_000;
    /// Seconds until the API server ends a watch. Below the five minutes at which many load balancers cut idle
    /// connections.
    watch_seconds: 285, 10..=3_600;
    /// Changes of the cluster that wait for the executor; a full queue slows the watches down.
    event_queue: 1_024, 16..=65_536;
    /// Seconds between two full comparisons that nothing asked for: catches what a watch missed.
    resync_seconds: 600, 5..=86_400;
    /// Bytes of the page cache of the checkpoint. sled takes a multiple of it at peaks.
    checkpoint_cache_bytes: 8_388_608, 1_048_576..=1_073_741_824;
}

impl Limits {
    /// Applies `[limits]` of the configuration file.
    ///
    /// # Errors
    /// Unknown names and values out of range.
    pub fn apply(&mut self, values: &BTreeMap<String, u64>) -> Result<(), LimitError> {
        values.iter().try_for_each(|(name, value)| self.set(name, *value))
    }

    /// A limit that counts things in memory.
    #[must_use]
    pub fn count(value: u64) -> usize {
        usize::try_from(value).unwrap_or(usize::MAX)
    }

    /// A limit that counts seconds.
    #[must_use]
    pub const fn seconds(value: u64) -> Duration {
        Duration::from_secs(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_refused_by_name() {
        let mut limits = Limits::default();
        assert_eq!(limits.set("list_page", 500), Ok(()));
        assert_eq!(limits.list_page, 500);
        let error = limits.set("list_page", 1).unwrap_err();
        assert_eq!(error.to_string(), "limit list_page must be between 10 and 5000, not 1");
        assert!(limits.set("lists", 1).unwrap_err().to_string().contains("list_page"));
    }

    #[test]
    fn defaults_are_within_their_own_ranges() {
        let mut limits = Limits::default();
        let defaults = Limits::default();
        let values = [
            ("manifest_bytes", defaults.manifest_bytes),
            ("receipt_queue", defaults.receipt_queue),
            ("checkpoint_cache_bytes", defaults.checkpoint_cache_bytes),
        ];
        for (name, value) in values {
            assert_eq!(limits.set(name, value), Ok(()));
        }
    }
}
