//! The git generator: one set of parameters for each file, or for each object of a file that holds a list, or for each directory.
//!
//! Globs of `files` are git pathspecs, as in Argo CD by default: `*` crosses `/`, and a plain path also names what lies below it.
//! Globs of `directories` are Go's `path.Match`: `*` stops at `/`. What an `exclude` item matches is out, wherever it stands.

use serde_json::Value;
use windlass_protocol::{
    glob::{Dialect, Glob},
    resource::{GitGenerator, GitItem},
    yaml,
};
use windlass_template::{Params, flatten};

use super::{GenerateCause, GenerateLimits, SourceFile, Sources, append_values, normalize};

/// Whether `git.files` items select a path. Globs that cannot be read select nothing.
#[must_use]
pub fn wants_file(items: &[GitItem], path: &str) -> bool {
    compile(items, Dialect::Pathspec).is_ok_and(|items| is_selected(&items, path))
}

/// Whether `git.directories` items select a path. Hidden directories are never selected, as in Argo CD.
#[must_use]
pub fn wants_directory(items: &[GitItem], path: &str) -> bool {
    compile(items, Dialect::GoPath).is_ok_and(|items| is_visible(path) && is_selected(&items, path))
}

pub(super) fn params(
    generator: &GitGenerator,
    sources: &dyn Sources,
    limits: &GenerateLimits,
) -> Result<Vec<Params>, GenerateCause> {
    let revision = if generator.revision.is_empty() { "HEAD" } else { generator.revision.as_str() };
    let mut result = Vec::new();
    if !generator.directories.is_empty() {
        let globs = compile(&generator.directories, Dialect::GoPath)?;
        let mut paths = sources.directories(&generator.repo_url, revision, &generator.directories)?;
        paths.retain(|path| is_visible(path) && is_selected(&globs, path));
        paths.sort();
        paths.dedup();
        check_count(paths.len(), limits)?;
        for path in &paths {
            let mut params = Params::new();
            path_params(&generator.path_param_prefix, path, None, &mut params);
            append_values(&generator.values, &mut params)?;
            result.push(params);
        }
    } else if !generator.files.is_empty() {
        let globs = compile(&generator.files, Dialect::Pathspec)?;
        let mut files = sources.files(&generator.repo_url, revision, &generator.files)?;
        files.retain(|file| is_selected(&globs, &file.path));
        files.sort_by(|left, right| left.path.cmp(&right.path));
        files.dedup_by(|left, right| left.path == right.path);
        check_count(files.len(), limits)?;
        for file in &files {
            file_params(generator, file, limits, &mut result)?;
        }
    } else {
        return Err(GenerateCause::NoPaths);
    }
    Ok(result)
}

fn check_count(count: usize, limits: &GenerateLimits) -> Result<(), GenerateCause> {
    if count > limits.paths { Err(GenerateCause::Limit { name: "paths", limit: limits.paths }) } else { Ok(()) }
}

/// Items with their globs read, and whether they exclude.
fn compile(items: &[GitItem], dialect: Dialect) -> Result<Vec<(Glob, bool)>, GenerateCause> {
    items.iter().map(|item| Ok((Glob::new(&item.path, dialect)?, item.exclude))).collect()
}

fn is_selected(items: &[(Glob, bool)], path: &str) -> bool {
    let is_match = |wanted: bool| items.iter().any(|(glob, exclude)| *exclude == wanted && glob.matches(path));
    is_match(false) && !is_match(true)
}

fn is_visible(path: &str) -> bool {
    !path.is_empty() && !path.split('/').any(|part| part.starts_with('.'))
}

/// The parameters of one file: one set for an object, or an empty file; one for each object of a list.
fn file_params(
    generator: &GitGenerator,
    file: &SourceFile,
    limits: &GenerateLimits,
    result: &mut Vec<Params>,
) -> Result<(), GenerateCause> {
    let bad = |line: Option<u32>, message: String| GenerateCause::File { path: file.path.clone(), line, message };
    if file.content.len() > limits.file_bytes {
        let message =
            format!("the file has {} bytes, a parameter file may have {}", file.content.len(), limits.file_bytes);
        return Err(bad(None, message));
    }
    let mut documents = yaml::values(&file.content, &yaml::Options::default())
        .map_err(|error| bad(Some(error.line), format!("unable to parse file: {}", error.kind)))?;
    // Go's reader takes the first document of a stream.
    documents.truncate(1);
    let (value, line) = documents.pop().map_or((Value::Null, 1), |document| (document.value, document.line));
    let objects = match value {
        Value::Null => vec![Value::Object(serde_json::Map::new())],
        Value::Object(_) => vec![value],
        Value::Array(items) => items,
        other => {
            let message = format!("unable to parse file: expected an object or a list of objects, found {other}");
            return Err(bad(Some(line), message));
        }
    };
    for (index, object) in objects.iter().enumerate() {
        if !object.is_object() {
            return Err(bad(Some(line), format!("unable to parse file: entry {index} of the list is no object")));
        }
        if result.len() == limits.applications {
            return Err(GenerateCause::Limit { name: "Applications", limit: limits.applications });
        }
        let mut params = Params::new();
        flatten("", object, &mut params);
        let (directory, name) = file.path.rsplit_once('/').unwrap_or((".", &file.path));
        path_params(&generator.path_param_prefix, directory, Some(name), &mut params);
        append_values(&generator.values, &mut params)?;
        result.push(params);
    }
    Ok(())
}

/// `path`, `path.basename`, `path[0]` and their kin; they win over what the file says under these names.
fn path_params(prefix: &str, directory: &str, file: Option<&str>, params: &mut Params) {
    let path = if prefix.is_empty() { "path".to_owned() } else { format!("{prefix}.path") };
    let basename = directory.rsplit('/').next().unwrap_or(directory);
    for (index, segment) in directory.split('/').enumerate() {
        if !segment.is_empty() {
            params.insert(format!("{path}[{index}]"), segment.to_owned());
        }
    }
    params.insert(format!("{path}.basename"), basename.to_owned());
    params.insert(format!("{path}.basenameNormalized"), normalize(basename));
    if let Some(name) = file {
        params.insert(format!("{path}.filename"), name.to_owned());
        params.insert(format!("{path}.filenameNormalized"), normalize(name));
    }
    params.insert(path, directory.to_owned());
}
