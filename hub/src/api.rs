//! The resource API: the hub's own objects, spoken as Kubernetes speaks, so that `kubectl`, client-go and kube-rs work with an
//! ordinary kubeconfig.
//!
//! ```text
//! HTTPS -> serve -> entry (limits, account, access log) -> route -> read | watch | write | delete -> Replica
//!                                                              \-> discovery, openapi, reviews, providers
//! ```
//!
//! Reads come from this node's replica behind a read barrier, watches from the bounded event ring, never from the Raft log.
//! Writes become one [`windlass_hub_core::Command::Write`]; patches are computed here against a revision that the command names.
//! This module never decides what an object means (`windlass-hub-core` does), never reads a blob or a Git repository (the traits
//! of [`ports`] do), and never writes a secret into a log.

mod accounts;
mod answer;
mod body;
mod columns;
mod delete;
mod discovery;
mod entry;
mod error;
mod extras;
mod hubs;
mod hubtrust;
mod media;
mod object;
mod openapi;
mod patch;
mod ports;
mod protobuf;
mod query;
mod read;
mod reviews;
mod route;
mod selector;
mod serve;
mod strategic;
mod table;
#[cfg(test)]
mod tests;
mod watch;
mod write;

pub use self::{
    accounts::{ACCOUNTS_SECRET, ADMIN_ACCOUNT, token_hash},
    entry::ApiServer,
    ports::{
        Admission, ApiContext, ApiLimits, BackupStream, BackupStreams, Details, Generators, JoinToken, Manifests,
        Presence, ProviderError, Webhook,
    },
    serve::{Remote, serve},
};
