//! The harness of the end-to-end tests: real peers around the real binaries.
//!
//! A test is one `#[test]` function that returns [`scenario`]`(async { ... })`. In it:
//! - [`ControlPlane`] is a real Kubernetes control plane (kube-apiserver, etcd,
//!   kube-controller-manager; kwok plays the node) on loopback;
//! - [`GitServer`] and [`GitRepo`] are a Git host over smart HTTP and a work tree of it;
//! - [`S3Server`] is an S3-compatible store that checks signatures;
//! - [`Process`] is a program under test, with its log, to be killed and restarted;
//! - [`Binaries`] are the binaries of this workspace, [`Tools`] those of the peers;
//! - [`wait_until`] polls what can only be polled, with a deadline.
//!
//! Everything lives in a [`Workdir`] below the temporary directory and ends when its
//! value is dropped, or when the test process dies. `WINDLASS_KEEP=1` keeps the files.
//! Nothing here listens on, or speaks to, anything but loopback.

mod binaries;
mod git;
mod kubectl;
mod plane;
pub mod power;
mod s3;
mod tools;

pub use crate::binaries::Binaries;
pub use crate::git::{Access, GitRepo, GitServer};
pub use crate::kubectl::Kubectl;
pub use crate::plane::ControlPlane;
pub use crate::s3::S3Server;
pub use crate::tools::{Tools, workspace_root};
pub use windlass_chaos::host::{
    Process, START_DEADLINE, Signal, WAIT_DEADLINE, Workdir, free_port, scenario, wait_until,
};
