//! Listing and fetching over HTTP with gix.

use gix::{
    bstr::{BStr, ByteSlice},
    protocol::{
        handshake::Ref,
        transport::{Protocol, client::blocking_io::http::Transport},
    },
    remote::{Direction, fetch::Tags, ref_map},
};
use reqwest::Url;

use super::{
    SourceError,
    guard::Guard,
    http::{Client, GitHttp},
    reference::{CommitId, ListedRef},
    repository::Credentials,
};

/// One repository on a server, for one operation.
#[derive(Clone, Copy)]
pub(super) struct Server<'a> {
    pub(super) client: &'a Client,
    pub(super) url: &'a Url,
    pub(super) credentials: Option<&'a Credentials>,
    pub(super) guard: &'a Guard,
}

/// Where a fetched reference is kept in the mirror. Hashed, because names of a server may collide in time as files do:
/// a branch `a` that becomes `a/b`.
pub(super) fn tracking_ref(name: &str) -> String {
    let hash = blake3::hash(name.as_bytes()).to_hex();
    let hash: String = hash.chars().take(32).collect();
    format!("refs/windlass/{hash}")
}

impl Server<'_> {
    /// Branches, tags and `HEAD`, without objects. `mirror` is needed by gix but not changed.
    pub(super) fn list(self, mirror: &gix::Repository) -> Result<Vec<ListedRef>, SourceError> {
        // Nothing is stored under the right sides: patterns must have one.
        let specs = ["HEAD", "refs/heads/*:refs/listed/heads/*", "refs/tags/*:refs/listed/tags/*"];
        let refs = self.run(mirror, &specs, |remote, transport| {
            let (map, _) = remote
                .to_connection_with_transport(transport)
                .with_credentials(|_| Ok(None))
                .ref_map(gix::progress::Discard, options(true))?;
            Ok(map.remote_refs)
        })?;
        Ok(convert(&refs))
    }

    /// Fetches the history of `specs` into `mirror`; gives the references as they were at that moment.
    pub(super) fn fetch(
        self,
        mirror: &gix::Repository,
        specs: &[String],
        allowed_bytes: u64,
    ) -> Result<Vec<ListedRef>, SourceError> {
        self.guard.allow("max_repository_bytes", allowed_bytes);
        let refs = self.run(mirror, specs, |remote, transport| {
            let prepared = remote
                .to_connection_with_transport(transport)
                .with_credentials(|_| Ok(None))
                .prepare_fetch(gix::progress::Discard, options(false))?;
            let refs = prepared.ref_map().remote_refs.clone();
            prepared.receive(gix::progress::Discard, self.guard.interrupt())?;
            Ok(refs)
        })?;
        Ok(convert(&refs))
    }

    fn run<S: AsRef<str>>(
        self,
        mirror: &gix::Repository,
        specs: &[S],
        work: impl FnOnce(&gix::Remote<'_>, Transport<GitHttp>) -> gix::Result<Vec<Ref>>,
    ) -> Result<Vec<Ref>, SourceError> {
        let http = self.client.session(self.url, self.credentials, self.guard)?;
        let outcome = (|| {
            let url = gix::url::parse(self.url.as_str().as_bytes().as_bstr())?;
            let specs = specs.iter().map(|spec| BStr::new(spec.as_ref()));
            let remote = mirror
                .remote_at_without_url_rewrite(url.clone())?
                .with_fetch_tags(Tags::None)
                .with_refspecs(specs, Direction::Fetch)?;
            work(&remote, Transport::new_http(http, url, Protocol::V2, false))
        })();
        outcome.map_err(|error| {
            // What the guard saw is the cause; gix only saw a read fail.
            self.guard.fault().unwrap_or_else(|| SourceError::Protocol {
                repository: self.guard.label().to_owned(),
                reason: describe(&error),
            })
        })
    }
}

fn options(filter: bool) -> ref_map::Options {
    ref_map::Options { prefix_from_spec_as_filter_on_remote: filter, ..ref_map::Options::default() }
}

fn convert(refs: &[Ref]) -> Vec<ListedRef> {
    refs.iter()
        .filter_map(|listed| {
            let (name, target) = match listed {
                Ref::Peeled { full_ref_name, object, .. }
                | Ref::Direct { full_ref_name, object }
                | Ref::Symbolic { full_ref_name, object, .. } => (full_ref_name, object),
                Ref::Unborn { .. } => return None,
            };
            Some(ListedRef { name: name.to_str().ok()?.to_owned(), target: CommitId::from(*target) })
        })
        .collect()
}

/// gix's error with its causes on one line, bounded.
pub(super) fn describe(error: &gix::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        if text.len() > 600 {
            break;
        }
        source = cause.source();
    }
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(600).collect()
}
