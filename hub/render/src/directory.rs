//! Plain directories: every manifest file, in order, with Argo CD's rules of what is passed over.

use serde_json::Value;
use windlass_protocol::{
    resource::DirectorySource,
    yaml::{self, DuplicateKeys},
};

use crate::{
    error::{Problem, ProblemKind, RenderError},
    glob,
    reader::Reader,
    tree::EntryKind,
};

/// A file that holds this text is passed over.
const SKIP_MARKER: &[u8] = b"+argocd:skip-file-rendering";

/// Reads the manifests below `root`. Problems of all files are reported together.
pub(crate) fn render(
    reader: &mut Reader<'_>,
    root: &str,
    options: &DirectorySource,
) -> Result<Vec<Value>, RenderError> {
    let mut files = Vec::new();
    list(reader, root, root, options, 0, &mut files)?;
    let mut manifests = Vec::new();
    let mut problems = Vec::new();
    for file in files {
        match read(reader, &file, &mut manifests) {
            Ok(()) if manifests.len() > reader.limits.resources => {
                return Err(Problem::limit("resources", reader.limits.resources).in_file(&file).into());
            }
            Ok(()) => {}
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(manifests) } else { Err(RenderError { problems }) }
}

fn list(
    reader: &mut Reader<'_>,
    root: &str,
    directory: &str,
    options: &DirectorySource,
    depth: usize,
    files: &mut Vec<String>,
) -> Result<(), Problem> {
    if depth > reader.limits.depth {
        return Err(Problem::limit("depth", reader.limits.depth).in_file(directory));
    }
    for entry in reader.directory(directory)?.unwrap_or_default() {
        let path = if directory.is_empty() { entry.name.clone() } else { format!("{directory}/{}", entry.name) };
        match entry.kind {
            EntryKind::Directory if options.recurse => list(reader, root, &path, options, depth + 1, files)?,
            EntryKind::File if is_manifest(&entry.name) && is_wanted(root, &path, options) => files.push(path),
            EntryKind::Symlink if is_manifest(&entry.name) && is_wanted(root, &path, options) => {
                reader.warnings.push(format!("{path}: symbolic links are not followed"));
            }
            EntryKind::Directory | EntryKind::File | EntryKind::Symlink | EntryKind::Submodule => {}
        }
    }
    Ok(())
}

fn is_manifest(name: &str) -> bool {
    [".yaml", ".yml", ".json", ".jsonnet"].iter().any(|end| name.ends_with(end))
}

fn is_wanted(root: &str, path: &str, options: &DirectorySource) -> bool {
    let relative = path.strip_prefix(root).unwrap_or(path).trim_start_matches('/');
    (options.exclude.is_empty() || !glob::fits(&options.exclude, relative))
        && (options.include.is_empty() || glob::fits(&options.include, relative))
}

fn read(reader: &mut Reader<'_>, file: &str, manifests: &mut Vec<Value>) -> Result<(), Problem> {
    let Some(content) = reader.file(file)? else { return Ok(()) };
    if content.windows(SKIP_MARKER.len()).any(|window| window == SKIP_MARKER) {
        return Ok(());
    }
    if file.ends_with(".jsonnet") {
        let message = "Jsonnet is not rendered; exclude the file with `directory.exclude`, or commit its output";
        return Err(Problem::unsupported(message).in_file(file));
    }
    let before = manifests.len();
    match documents(reader, file, &content, manifests) {
        Ok(()) => Ok(()),
        Err(problem) if manifests.len() > before || must_be_manifest(&content, &problem) => Err(problem),
        Err(problem) => {
            // Some other YAML that lies here, such as the values of a chart.
            reader.warnings.push(format!("ignored: {problem}"));
            Ok(())
        }
    }
}

/// Whether a file that cannot be read as manifests was meant as some.
fn must_be_manifest(content: &[u8], problem: &Problem) -> bool {
    let has = |word: &[u8]| content.windows(word.len()).any(|window| window == word);
    problem.kind == ProblemKind::Object || (has(b"apiVersion:") && has(b"kind:") && has(b"metadata:"))
}

fn documents(reader: &mut Reader<'_>, file: &str, content: &[u8], manifests: &mut Vec<Value>) -> Result<(), Problem> {
    if file.ends_with(".json") {
        let value: Value = serde_json::from_slice(content).map_err(|error| {
            let line = u32::try_from(error.line()).unwrap_or(u32::MAX);
            Problem::new(ProblemKind::Syntax, error.to_string()).in_file(file).at_line(line)
        })?;
        return flatten(value, file, 1, manifests);
    }
    let options = yaml::Options {
        duplicates: DuplicateKeys::MergeInArgo,
        limits: yaml::Limits { bytes: usize::MAX, ..yaml::Limits::default() },
        ..yaml::Options::default()
    };
    let parsed = yaml::values(content, &options).map_err(|error| Problem::from_yaml(file, &error))?;
    for document in parsed {
        let warnings = document.warnings.iter().map(|warning| format!("{file}:{}: {}", warning.line, warning.message));
        reader.warnings.extend(warnings);
        flatten(document.value, file, document.line, manifests)?;
    }
    Ok(())
}

/// Adds a manifest, or the items of a list of them.
fn flatten(value: Value, file: &str, line: u32, manifests: &mut Vec<Value>) -> Result<(), Problem> {
    let Value::Object(mut map) = value else {
        return Err(Problem::field("is not a manifest: a mapping is expected").in_file(file).at_line(line));
    };
    let text = |name: &str| map.get(name).and_then(Value::as_str).unwrap_or_default();
    if text("kind").is_empty() {
        let name = map.get("metadata").and_then(|metadata| metadata.get("name")).and_then(Value::as_str);
        let message = format!("Object 'Kind' is missing in the manifest '{}'", name.unwrap_or("without a name"));
        // With both of these it can be nothing else than a manifest.
        let is_manifest = map.contains_key("apiVersion") && map.contains_key("metadata");
        let kind = if is_manifest { ProblemKind::Object } else { ProblemKind::Field };
        return Err(Problem::new(kind, message).in_file(file).at_line(line).in_field("kind"));
    }
    if text("apiVersion").is_empty() {
        let message = format!("Object 'apiVersion' is missing in the manifest of kind '{}'", text("kind"));
        return Err(Problem::field(message).in_file(file).at_line(line).in_field("apiVersion"));
    }
    match map.remove("items") {
        Some(Value::Array(items)) => items.into_iter().try_for_each(|item| flatten(item, file, line, manifests)),
        items => {
            map.extend(items.map(|items| ("items".to_owned(), items)));
            manifests.push(Value::Object(map));
            Ok(())
        }
    }
}
