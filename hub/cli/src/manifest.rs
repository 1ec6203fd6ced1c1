//! Manifests in files, directories and standard input: YAML or JSON, many documents a file.
//!
//! Keys that stand twice are merged in objects of `argoproj.io`, with a warning that names file and line, because Argo CD
//! users have such files; anywhere else they are an error.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use windlass_protocol::{
    json,
    yaml::{self, Dialect, DuplicateKeys, Limits},
};

use crate::output::Output;

/// An object, and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Manifest {
    /// The object.
    pub(crate) object: Value,
    /// `file:line`.
    pub(crate) place: String,
}

/// Whether directories inside of directories are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Only the directory itself.
    Flat,
    /// All below it.
    Recursive,
}

/// What was read: the objects, and one message for each file or document that cannot be used.
#[derive(Debug, Default)]
pub(crate) struct Read {
    /// In the order of files and documents.
    pub(crate) manifests: Vec<Manifest>,
    /// With file and line.
    pub(crate) problems: Vec<String>,
}

/// Reads files, directories and `-`.
///
/// # Errors
/// A path that does not exist or cannot be read. Bad content becomes a problem of its file.
pub(crate) fn read(paths: &[PathBuf], depth: Depth, output: &mut Output) -> Result<Read> {
    let mut read = Read::default();
    for path in paths {
        if path.as_os_str() == "-" {
            let mut bytes = Vec::new();
            let limit = u64::try_from(Limits::default().bytes).unwrap_or(u64::MAX).saturating_add(1);
            std::io::stdin().take(limit).read_to_end(&mut bytes).context("cannot read standard input")?;
            parse("standard input", &bytes, &mut read, output);
            continue;
        }
        let files = if path.is_dir() { files(path, depth)? } else { vec![path.clone()] };
        if files.is_empty() {
            bail!("{} holds no .yaml, .yml or .json file (-R reads the directories below it)", path.display());
        }
        for file in files {
            let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            parse(&file.display().to_string(), &bytes, &mut read, output);
        }
    }
    Ok(read)
}

fn parse(file: &str, bytes: &[u8], read: &mut Read, output: &mut Output) {
    let options =
        yaml::Options { dialect: Dialect::Sigs, duplicates: DuplicateKeys::MergeInArgo, limits: Limits::default() };
    let documents = match yaml::values(bytes, &options) {
        Ok(documents) => documents,
        Err(error) => return read.problems.push(format!("{file}: {error}")),
    };
    for document in documents {
        for warning in &document.warnings {
            output.say(format!("Warning: {file}:{}: {}", warning.line, warning.message));
        }
        let place = format!("{file}:{}", document.line);
        flatten(document.value, &place, read);
    }
}

/// A List counts as its items.
fn flatten(object: Value, place: &str, read: &mut Read) {
    let kind = json::text(&object, &["kind"]);
    if kind.ends_with("List") && object.get("items").is_some_and(Value::is_array) {
        let mut object = object;
        if let Some(Value::Array(items)) = json::remove(&mut object, &["items"]) {
            for item in items {
                flatten(item, place, read);
            }
        }
        return;
    }
    if kind.is_empty() || json::text(&object, &["apiVersion"]).is_empty() {
        read.problems.push(format!("{place}: no Kubernetes object: `apiVersion` and `kind` are needed"));
    } else {
        read.manifests.push(Manifest { object, place: place.to_owned() });
    }
}

/// Manifest files of a directory, sorted, files before directories.
fn files(directory: &Path, depth: Depth) -> Result<Vec<PathBuf>> {
    let told = || format!("cannot read the directory {}", directory.display());
    let (mut found, mut deeper) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(directory).with_context(told)? {
        let path = entry.with_context(told)?.path();
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if path.is_dir() {
            // A link to a directory could lead in a circle; hidden ones hold no manifests.
            let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            if !path.is_symlink() && !hidden {
                deeper.push(path);
            }
        } else if matches!(extension, "yaml" | "yml" | "json") {
            found.push(path);
        }
    }
    found.sort();
    deeper.sort();
    if depth == Depth::Recursive {
        for directory in deeper {
            found.extend(files(&directory, depth)?);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::captured;

    fn read_text(text: &str) -> (Read, String) {
        let (mut output, _, talk) = captured();
        let mut read = Read::default();
        parse("a.yaml", text.as_bytes(), &mut read, &mut output);
        (read, talk.text())
    }

    #[test]
    fn documents_and_lists_become_objects_with_places() {
        let text = "apiVersion: v1\nkind: Namespace\n---\n# nothing\n---\napiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: ConfigMap\n";
        let (read, _) = read_text(text);
        let kinds: Vec<&str> = read.manifests.iter().map(|manifest| json::text(&manifest.object, &["kind"])).collect();
        assert_eq!(kinds, ["Namespace", "ConfigMap"]);
        assert_eq!(read.manifests[0].place, "a.yaml:1");
        assert!(read.problems.is_empty());
    }

    #[test]
    fn double_keys_are_merged_for_argo_and_an_error_elsewhere() {
        let body = "metadata: {name: x}\nspec:\n  a: 1\nspec:\n  b: 2\n";
        let (read, talk) = read_text(&format!("apiVersion: argoproj.io/v1alpha1\nkind: Application\n{body}"));
        assert_eq!(read.manifests[0].object["spec"], serde_json::json!({"a": 1, "b": 2}));
        assert!(talk.contains("a.yaml:6"), "{talk}");
        let (read, _) = read_text(&format!("apiVersion: v1\nkind: ConfigMap\n{body}"));
        assert!(read.manifests.is_empty());
        assert!(read.problems[0].starts_with("a.yaml: line "), "{:?}", read.problems);
    }

    #[test]
    fn what_is_no_object_is_named() {
        let (read, _) = read_text("resources: [a.yaml]\n");
        assert!(read.problems[0].starts_with("a.yaml:1: no Kubernetes object"));
    }

    #[test]
    fn directories_are_sorted_and_flat_unless_asked() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.yaml", "a.json", "c.txt", "deep/d.yml", ".git/e.yaml"] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let names = |depth| {
            let files = files(folder.path(), depth).unwrap();
            files.iter().map(|path| path.strip_prefix(folder.path()).unwrap().display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(Depth::Flat), ["a.json", "b.yaml"]);
        assert_eq!(names(Depth::Recursive), ["a.json", "b.yaml", "deep/d.yml"]);
    }
}
