//! Rendering: an immutable tree of files and a source's options become manifests.
//!
//! Pure: it reads only through [`Tree`], never a file system, a clock, the environment or the network, and starts no
//! process. The same inputs give the same bytes on every node. It never panics on input: whatever is wrong with
//! a tree comes back as a [`RenderError`] that names file, line or field, and cause.
//!
//! - [`render`] is what a hub calls for an Application: type detection, overrides, plain directories, Kustomize.
//! - [`kustomize_build`] is `kustomize build` alone, byte for byte.

mod detect;
mod directory;
mod environment;
mod error;
mod glob;
mod kustomize;
mod limits;
mod overrides;
mod path;
mod reader;
mod request;
mod tree;

pub use crate::{
    detect::SourceType,
    environment::BuildEnvironment,
    error::{Problem, ProblemKind, RenderError},
    kustomize::{Built, KustomizeFlags, LoadRestrictions, Reorder, kustomize_build},
    limits::Limits,
    request::{Rendered, Request, render},
    tree::{Entry, EntryKind, MemoryTree, Tree, TreeError},
};
