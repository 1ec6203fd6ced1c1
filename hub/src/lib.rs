//! The hub: the IO shell around `windlass-hub-core`.
//!
//! | module | what it does |
//! |---|---|
//! | [`config`], [`command`], [`telemetry`] | command line; file, environment and flags become one `Config`; logs |
//! | [`init`], [`node`] | a new group; a running hub and how it drains |
//! | [`store`], [`raft`] | journal, blobs, the log and openraft |
//! | [`peers`], [`group`] | hubs among themselves: transport; members, joins, forwarded writes |
//! | [`peers`] | hubs among themselves: QUIC, mutual TLS, threads of their own |
//! | [`machine`], [`replica`], [`events`] | the replicated state in this process, and the way to change it |
//! | [`sealing`], [`trust`] | secrets at rest; root, issuing keys and certificates |
//! | [`source`], `repositories`, `generator_trees` | Git, its credentials, and what generators read |
//! | [`rendering`], [`blobs`] | the worker pool and its memo; manifests by digest |
//! | [`backup`] | backups to files and S3, and a new group from one |
//! | [`tasks`] | loops of the leader: planning, ticks, collection |
//! | [`gateway`] | enrolment and sessions of agents |
//! | [`api`], `local` | the resource API, and what it asks of the rest |

pub mod api;
pub mod backup;
pub mod blobs;
pub mod command;
pub mod config;
pub mod events;
pub mod gateway;
mod generator_trees;
pub mod group;
pub mod init;
mod local;
pub mod machine;
pub mod node;
pub mod peers;
pub mod raft;
pub mod rendering;
pub mod replica;
mod repositories;
pub mod sealing;
pub mod source;
pub mod store;
pub mod tasks;
pub mod telemetry;
mod token;
pub mod trust;
