//! Newtypes for every identity and counter that crosses between binaries.
//!
//! One word, one meaning: a [`Generation`] orders delivery to one cluster, a [`Release`] is raised at each change of what one
//! assignment may apply, a [`StateRevision`] is Kubernetes' `resourceVersion`, and an [`Epoch`] is raised by restore and forced
//! recovery. None of them is ever made here from a clock or from randomness; proposers supply uids and nonces.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The value before anything has happened.
            pub const ZERO: Self = Self(0);

            /// The next value; saturates, so that it can never go back.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

counter! {
    /// Orders delivery of desired state to one cluster, within one [`Epoch`].
    Generation
}
counter! {
    /// Raised by a restore or a forced recovery; desired state is ordered by (epoch, generation).
    Epoch
}
counter! {
    /// Raised at each change of an assignment's released digest.
    Release
}
counter! {
    /// `resourceVersion` of the hub's API: raised once per changed object inside `apply`.
    StateRevision
}
counter! {
    /// Tells the processes of one cluster's agent apart; the newer one wins.
    Incarnation
}
counter! {
    /// Numbers the operations of one assignment; an operation runs once.
    OperationId
}
counter! {
    /// Numbers receipts of one incarnation, for acknowledgement after commit.
    ReceiptSeq
}

/// A content address: BLAKE3 of the content, or a keyed BLAKE3 for content that must not be guessable (Secrets).
///
/// Text form: 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The address of public content.
    #[must_use]
    pub fn of(content: &[u8]) -> Self {
        Self(*blake3::hash(content).as_bytes())
    }

    /// The address of content that must not be guessed from its name: BLAKE3 keyed with a secret of the hub.
    #[must_use]
    pub fn keyed(key: &[u8; 32], content: &[u8]) -> Self {
        Self(*blake3::keyed_hash(key, content).as_bytes())
    }

    /// The first 12 digits, for people.
    #[must_use]
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(12);
        text
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// A text is not a digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a digest is 64 hexadecimal digits, not {0:?}")]
pub struct DigestError(String);

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || DigestError(text.chars().take(80).collect());
        if text.len() != 64 {
            return Err(error());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| error())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| error())?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
        } else {
            <[u8; 32]>::deserialize(deserializer).map(Self)
        }
    }
}

/// Namespace and name of an object of the hub's API, in the order in which they sort.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NamespacedName {
    /// Empty for cluster-scoped kinds.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl NamespacedName {
    /// From both parts.
    #[must_use]
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for NamespacedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// A request is applied at most once within the memory of the state (10 minutes): made by the proposer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(pub [u8; 16]);

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestId({:032x})", u128::from_be_bytes(self.0))
    }
}

/// A random nonce as a version 4 UUID text, as Kubernetes prints `metadata.uid` (RFC 9562, section 5.4).
#[must_use]
pub fn uuid_v4(random: [u8; 16]) -> String {
    let mut value = u128::from_be_bytes(random);
    value &= !(0xf << 76);
    value |= 0x4 << 76;
    value &= !(0x3 << 62);
    value |= 0x2 << 62;
    let hex = format!("{value:032x}");
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_round_trip_as_text() {
        let digest = Digest::of(b"windlass");
        assert_eq!(digest.to_string().parse::<Digest>(), Ok(digest));
        assert!("zz".parse::<Digest>().is_err());
        assert_ne!(Digest::keyed(&[1; 32], b"x"), Digest::keyed(&[2; 32], b"x"));
    }

    #[test]
    fn uuids_carry_version_and_variant() {
        assert_eq!(uuid_v4([0xff; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(uuid_v4([0; 16]), "00000000-0000-4000-8000-000000000000");
    }

    #[test]
    fn counters_never_go_back() {
        assert_eq!(Generation(u64::MAX).next(), Generation(u64::MAX));
    }
}
