//! SPIFFE ids of Windlass: the only names that certificates are trusted for.
//!
//! Never percent-decodes or normalises: a name is accepted as written or refused.

use std::{fmt, str::FromStr};

use super::IdentityError;

/// Longest path segment; keeps an id far below the 2,048 bytes that SPIFFE allows.
const MAX_SEGMENT: usize = 253;

/// Name of a trust domain, such as `windlass.example.org`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TrustDomainName(String);

impl TrustDomainName {
    /// Accepts lower-case letters, digits, `.`, `-` and `_`, 1 to 255 bytes (SPIFFE-ID section 2.1).
    pub fn new(name: &str) -> Result<Self, IdentityError> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
        if name.is_empty() || name.len() > 255 || !name.bytes().all(allowed) {
            return Err(IdentityError::Name {
                what: "trust domain",
                value: shortened(name),
                rule: "1 to 255 of a-z 0-9 . - _",
            });
        }
        Ok(Self(name.to_owned()))
    }

    /// The name alone.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `spiffe://<name>`, the id that root and issuers carry.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("spiffe://{}", self.0)
    }
}

impl fmt::Display for TrustDomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TrustDomainName {
    type Err = IdentityError;

    fn from_str(name: &str) -> Result<Self, IdentityError> {
        Self::new(name)
    }
}

/// What a certificate stands for inside its trust domain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The agent of one cluster.
    Cluster {
        /// Name set by the administrator.
        name: String,
        /// Uid of the Cluster object: a name given anew has another one.
        uid: String,
    },
    /// One hub node.
    Hub {
        /// Node id.
        node: String,
    },
}

/// A whole SPIFFE id. Fields are checked at construction, hence private.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SpiffeId {
    trust_domain: TrustDomainName,
    subject: Subject,
}

impl SpiffeId {
    /// `spiffe://<trust-domain>/cluster/<name>/<uid>`.
    pub fn cluster(trust_domain: TrustDomainName, name: &str, uid: &str) -> Result<Self, IdentityError> {
        let subject = Subject::Cluster { name: segment("cluster name", name)?, uid: segment("cluster uid", uid)? };
        Ok(Self { trust_domain, subject })
    }

    /// `spiffe://<trust-domain>/hub/<node>`.
    pub fn hub(trust_domain: TrustDomainName, node: &str) -> Result<Self, IdentityError> {
        let subject = Subject::Hub { node: segment("hub node", node)? };
        Ok(Self { trust_domain, subject })
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomainName {
        &self.trust_domain
    }

    /// Cluster or hub.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.subject
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let domain = &self.trust_domain;
        match &self.subject {
            Subject::Cluster { name, uid } => write!(f, "spiffe://{domain}/cluster/{name}/{uid}"),
            Subject::Hub { node } => write!(f, "spiffe://{domain}/hub/{node}"),
        }
    }
}

impl FromStr for SpiffeId {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let refused = || IdentityError::Name {
            what: "SPIFFE id",
            value: shortened(text),
            rule: "spiffe://<trust-domain>/cluster/<name>/<uid> or spiffe://<trust-domain>/hub/<node>",
        };
        let rest = text.strip_prefix("spiffe://").ok_or_else(refused)?;
        let mut parts = rest.split('/');
        let domain = TrustDomainName::new(parts.next().unwrap_or_default())?;
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("cluster"), Some(name), Some(uid), None) => Self::cluster(domain, name, uid),
            (Some("hub"), Some(node), None, None) => Self::hub(domain, node),
            _ => Err(refused()),
        }
    }
}

fn segment(what: &'static str, value: &str) -> Result<String, IdentityError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let dots = value == "." || value == "..";
    if value.is_empty() || value.len() > MAX_SEGMENT || dots || !value.bytes().all(allowed) {
        return Err(IdentityError::Name {
            what,
            value: shortened(value),
            rule: "1 to 253 of a-z A-Z 0-9 . - _, not . or ..",
        });
    }
    Ok(value.to_owned())
}

/// The start of a refused value: an error message must not grow with hostile input.
fn shortened(value: &str) -> String {
    value.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_printed_and_parsed_back() {
        for text in ["spiffe://fleet.example/cluster/eu-1/7b1e", "spiffe://fleet.example/hub/n1"] {
            assert_eq!(text.parse::<SpiffeId>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for text in [
            "",
            "https://fleet.example/hub/n1",
            "spiffe:///hub/n1",
            "spiffe://Fleet/hub/n1",
            "spiffe://fleet/hub/",
            "spiffe://fleet/hub/..",
            "spiffe://fleet/hub/n1/",
            "spiffe://fleet/hub/n%31",
            "spiffe://fleet/cluster/a",
            "spiffe://fleet/cluster/a/b/c",
            "spiffe://fleet/user/a",
        ] {
            assert!(text.parse::<SpiffeId>().is_err(), "{text} was accepted");
        }
    }
}
