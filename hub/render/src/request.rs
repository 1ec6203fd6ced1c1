//! What a hub asks for an Application's source, and what it gets.

use std::collections::BTreeMap;

use serde_json::Value;
use windlass_protocol::resource::ApplicationSource;

use crate::{
    detect::{self, SourceType},
    directory,
    environment::BuildEnvironment,
    error::{Problem, ProblemKind, RenderError},
    kustomize::build_adjusted,
    limits::Limits,
    overrides, path,
    reader::Reader,
    tree::Tree,
};

/// A source at a commit.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The files of the commit.
    pub tree: &'a dyn Tree,
    /// The source.
    pub source: &'a ApplicationSource,
    /// What the Application tells about itself.
    pub environment: &'a BuildEnvironment,
    /// Bounds.
    pub limits: &'a Limits,
}

impl std::fmt::Debug for Request<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Request")
            .field("source", self.source)
            .field("environment", self.environment)
            .finish_non_exhaustive()
    }
}

/// The manifests of a source.
#[derive(Debug, Clone, PartialEq)]
pub struct Rendered {
    /// The tool that was used.
    pub source_type: SourceType,
    /// The manifests, lists opened, in the tool's order.
    pub manifests: Vec<Value>,
    /// What the author should know.
    pub warnings: Vec<String>,
    /// Every path that was read, with its object id then; `None` for one that was looked for and absent. While these
    /// stay the same, so does the result.
    pub read: BTreeMap<String, Option<String>>,
}

/// Renders a source.
///
/// # Errors
/// Whatever keeps the source from being rendered, as far as it can be found at once.
pub fn render(request: &Request<'_>) -> Result<Rendered, RenderError> {
    let mut reader = Reader::new(request.tree, request.limits);
    let root = path::join("", request.source.path.trim_matches('/'))
        .map_err(|problem| problem.in_field("spec.source.path"))?;
    check_root(&mut reader, &root)?;
    let source = detect::overridden(&mut reader, &root, request.source, &request.environment.app_name)?;
    let source_type = detect::source_type(&mut reader, &root, &source)?;
    let manifests = match source_type {
        SourceType::Directory => {
            let options = source.directory.clone().unwrap_or_default();
            directory::render(&mut reader, &root, &options)?
        }
        SourceType::Kustomize => kustomize(&mut reader, &root, &source, request.environment)?,
        SourceType::Helm => {
            let message = "Helm sources are not rendered by this version";
            return Err(Problem::unsupported(message).in_field("spec.source.helm").into());
        }
        SourceType::Plugin => {
            let message = "config management plugins are never run; commit their output instead";
            return Err(Problem::unsupported(message).in_field("spec.source.plugin").into());
        }
    };
    check_limits(&manifests, request.limits)?;
    Ok(Rendered { source_type, manifests, warnings: reader.warnings, read: reader.read })
}

fn check_root(reader: &mut Reader<'_>, root: &str) -> Result<(), Problem> {
    if reader.is_directory(root)? {
        return Ok(());
    }
    let reason = match reader.file(root)? {
        Some(_) => "app path is not a directory",
        None => "app path does not exist",
    };
    Err(Problem::new(ProblemKind::NotFound, reason).in_file(root).in_field("spec.source.path"))
}

fn kustomize(
    reader: &mut Reader<'_>,
    root: &str,
    source: &ApplicationSource,
    environment: &BuildEnvironment,
) -> Result<Vec<Value>, RenderError> {
    let options = source.kustomize.as_ref();
    let flags = overrides::flags(options, environment, &mut reader.warnings);
    build_adjusted(reader, root, &flags, &mut |kustomization, reader| match options {
        Some(options) => overrides::apply(kustomization, options, source, environment, reader, root),
        None => Ok(()),
    })
}

/// Checks the size of each manifest and of all together.
fn check_limits(manifests: &[Value], limits: &Limits) -> Result<(), Problem> {
    if manifests.len() > limits.resources {
        return Err(Problem::limit("resources", limits.resources));
    }
    let mut bundle = 0_usize;
    for manifest in manifests {
        let mut counter = Counter(0);
        // Counting cannot fail, and a value can always be written.
        let _ = serde_json::to_writer(&mut counter, manifest);
        if counter.0 > limits.manifest {
            let text = |pointer: &str| manifest.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            let message =
                format!("the manifest of {} '{}' has {} bytes", text("/kind"), text("/metadata/name"), counter.0);
            return Err(Problem::limit("manifest", limits.manifest).while_(message));
        }
        bundle = bundle.saturating_add(counter.0);
    }
    if bundle > limits.bundle { Err(Problem::limit("bundle", limits.bundle)) } else { Ok(()) }
}

struct Counter(usize);

impl std::io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.saturating_add(bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
