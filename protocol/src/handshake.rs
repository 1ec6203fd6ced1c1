//! Version and capability negotiation, pure: both sides say what they speak, both compute the same answer.

use crate::message::{Hello, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN};

/// Capabilities that this build offers; each gates messages that older peers do not know.
pub const CAPABILITIES: &[&str] = &[];

/// The hello of this build.
#[must_use]
pub fn hello(software: &str) -> Hello {
    Hello {
        version_min: PROTOCOL_VERSION_MIN,
        version_max: PROTOCOL_VERSION,
        capabilities: CAPABILITIES.iter().map(|name| (*name).to_owned()).collect(),
        software: software.to_owned(),
    }
}

/// What both sides speak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The newest version of both.
    pub version: u16,
    /// Capabilities of both, sorted.
    pub capabilities: Vec<String>,
}

/// The peers have no version in common.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this side speaks protocol versions {ours_min} to {ours_max}, the other {theirs_min} to {theirs_max} ({software}): upgrade the older side"
)]
pub struct Incompatible {
    ours_min: u16,
    ours_max: u16,
    theirs_min: u16,
    theirs_max: u16,
    software: String,
}

/// The newest common version and the common capabilities.
///
/// # Errors
/// [`Incompatible`] when the version ranges do not meet.
pub fn agree(ours: &Hello, theirs: &Hello) -> Result<Agreed, Incompatible> {
    let version = ours.version_max.min(theirs.version_max);
    if version < ours.version_min.max(theirs.version_min) {
        return Err(Incompatible {
            ours_min: ours.version_min,
            ours_max: ours.version_max,
            theirs_min: theirs.version_min,
            theirs_max: theirs.version_max,
            software: theirs.software.chars().take(64).collect(),
        });
    }
    let mut capabilities: Vec<String> =
        ours.capabilities.iter().filter(|name| theirs.capabilities.contains(name)).cloned().collect();
    capabilities.sort();
    Ok(Agreed { version, capabilities })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(version_min: u16, version_max: u16, capabilities: &[&str]) -> Hello {
        let capabilities = capabilities.iter().map(|name| (*name).to_owned()).collect();
        Hello { version_min, version_max, capabilities, software: "test".to_owned() }
    }

    #[test]
    fn the_newest_common_version_wins() {
        let agreed = agree(&peer(1, 3, &["b", "a", "x"]), &peer(2, 5, &["a", "b", "y"]));
        assert_eq!(agreed, Ok(Agreed { version: 3, capabilities: vec!["a".to_owned(), "b".to_owned()] }));
    }

    #[test]
    fn ranges_that_do_not_meet_are_refused() {
        let error = agree(&peer(1, 1, &[]), &peer(2, 2, &[])).unwrap_err();
        assert!(error.to_string().contains("upgrade the older side"));
    }
}
