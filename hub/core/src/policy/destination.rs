//! `spec.destination` to a Cluster.
//!
//! `https://kubernetes.default.svc` is the Cluster named `in-cluster`, unless a Cluster claims that URL itself (DESIGN.md,
//! "Destinations").

use std::collections::BTreeMap;

use windlass_protocol::resource::{Destination, IN_CLUSTER_NAME, IN_CLUSTER_SERVER};

/// A destination whose Cluster is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvedDestination {
    /// API server URL: the one that was written, else the Cluster's first.
    pub server: String,
    /// Name of the Cluster.
    pub name: String,
    /// Project that the Cluster is reserved for; empty for none.
    pub project: String,
}

impl ResolvedDestination {
    /// What is known of a destination that does not resolve.
    #[must_use]
    pub fn as_written(destination: &Destination) -> Self {
        Self { server: destination.server.clone(), name: destination.name.clone(), project: String::new() }
    }
}

/// A registered Cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterEntry {
    /// Name.
    pub name: String,
    /// API server URLs that Applications may name.
    pub servers: Vec<String>,
    /// Project that the Cluster is reserved for; empty for none.
    pub project: String,
}

/// A destination names no Cluster, in Argo CD's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DestinationError {
    /// Both `server` and `name`.
    #[error("application destination can't have both name and server defined: {name} {server}")]
    Both {
        /// `name`.
        name: String,
        /// `server`.
        server: String,
    },
    /// Neither `server` nor `name`.
    #[error("Destination server missing from app spec")]
    Missing,
    /// No Cluster has the name.
    #[error("there are no clusters with this name: {0}")]
    UnknownName(String),
    /// No Cluster claims the URL.
    #[error("error getting cluster by server {0:?}: cluster {0:?} not found")]
    UnknownServer(String),
    /// Several Clusters claim the URL. The API refuses that; a restored state may still hold it.
    #[error("there are {} clusters with the same server {server:?}: [{}]", .names.len(), .names.join(" "))]
    Ambiguous {
        /// The URL.
        server: String,
        /// The Clusters.
        names: Vec<String>,
    },
}

/// An index of the registered Clusters by name and by URL: build it once for a pass over many Applications.
#[derive(Clone, Debug, Default)]
pub struct Destinations {
    by_name: BTreeMap<String, ClusterEntry>,
    names_by_server: BTreeMap<String, Vec<String>>,
}

impl Destinations {
    /// Indexes the Clusters.
    #[must_use]
    pub fn new(clusters: impl IntoIterator<Item = ClusterEntry>) -> Self {
        let mut index = Self::default();
        for cluster in clusters {
            for server in &cluster.servers {
                let names = index.names_by_server.entry(plain(server).to_owned()).or_default();
                if !names.contains(&cluster.name) {
                    names.push(cluster.name.clone());
                }
            }
            index.by_name.insert(cluster.name.clone(), cluster);
        }
        index
    }

    /// The Cluster of a destination.
    ///
    /// # Errors
    /// [`DestinationError`] in Argo CD's words.
    pub fn resolve(&self, destination: &Destination) -> Result<ResolvedDestination, DestinationError> {
        let Destination { server, name, .. } = destination;
        match (server.is_empty(), name.is_empty()) {
            (false, false) => Err(DestinationError::Both { name: name.clone(), server: server.clone() }),
            (true, true) => Err(DestinationError::Missing),
            (true, false) => {
                let cluster = self.by_name.get(name).ok_or_else(|| DestinationError::UnknownName(name.clone()))?;
                Ok(resolved(cluster, None))
            }
            (false, true) => Ok(resolved(self.by_server(server)?, Some(server))),
        }
    }

    fn by_server(&self, server: &str) -> Result<&ClusterEntry, DestinationError> {
        let unknown = || DestinationError::UnknownServer(server.to_owned());
        let name = match self.names_by_server.get(plain(server)).map(Vec::as_slice) {
            Some([name]) => name,
            Some([_, _, ..]) => {
                let names = self.names_by_server.get(plain(server)).cloned().unwrap_or_default();
                return Err(DestinationError::Ambiguous { server: server.to_owned(), names });
            }
            _ if plain(server) == IN_CLUSTER_SERVER => IN_CLUSTER_NAME,
            _ => return Err(unknown()),
        };
        self.by_name.get(name).ok_or_else(unknown)
    }
}

fn resolved(cluster: &ClusterEntry, written: Option<&str>) -> ResolvedDestination {
    let fallback = || {
        let of_name = if cluster.name == IN_CLUSTER_NAME { IN_CLUSTER_SERVER } else { "" };
        cluster.servers.first().map_or(of_name, String::as_str)
    };
    ResolvedDestination {
        server: written.unwrap_or_else(fallback).to_owned(),
        name: cluster.name.clone(),
        project: cluster.project.clone(),
    }
}

/// A URL without slashes at its end.
fn plain(server: &str) -> &str {
    server.trim_end_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(extra: &[&str]) -> Destinations {
        let mut clusters = vec![
            ClusterEntry {
                name: "a".into(),
                servers: vec!["https://a:6443".into(), "https://a2".into()],
                project: "p".into(),
            },
            ClusterEntry { name: "in-cluster".into(), ..ClusterEntry::default() },
        ];
        clusters.extend(extra.iter().map(|name| ClusterEntry {
            name: (*name).into(),
            servers: vec![IN_CLUSTER_SERVER.into()],
            project: String::new(),
        }));
        Destinations::new(clusters)
    }

    fn to(server: &str, name: &str) -> Destination {
        Destination { server: server.into(), name: name.into(), namespace: "n".into() }
    }

    #[test]
    fn a_destination_is_a_server_or_a_name() {
        let index = index(&[]);
        let expect = ResolvedDestination { server: "https://a:6443".into(), name: "a".into(), project: "p".into() };
        assert_eq!(index.resolve(&to("", "a")), Ok(expect));
        assert_eq!(index.resolve(&to("https://a:6443/", "")).map(|found| found.name), Ok("a".to_owned()));
        let error = |server, name| index.resolve(&to(server, name)).unwrap_err().to_string();
        assert_eq!(error("s", "n"), "application destination can't have both name and server defined: n s");
        assert_eq!(error("", ""), "Destination server missing from app spec");
        assert_eq!(error("", "b"), "there are no clusters with this name: b");
        assert_eq!(
            error("https://b", ""),
            "error getting cluster by server \"https://b\": cluster \"https://b\" not found"
        );
    }

    #[test]
    fn the_local_url_is_in_cluster_unless_it_is_claimed() {
        let name = |index: &Destinations| index.resolve(&to(IN_CLUSTER_SERVER, "")).map(|found| found.name);
        assert_eq!(name(&index(&[])), Ok("in-cluster".to_owned()));
        assert_eq!(name(&index(&["hub"])), Ok("hub".to_owned()));
        assert!(matches!(name(&index(&["hub", "other"])), Err(DestinationError::Ambiguous { .. })));
        assert!(matches!(name(&Destinations::default()), Err(DestinationError::UnknownServer(_))));
        assert_eq!(index(&[]).resolve(&to("", "in-cluster")).unwrap().server, IN_CLUSTER_SERVER);
    }
}
