//! Reading and replacing one kubeconfig file.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use windlass_protocol::yaml;

/// The content of a kubeconfig; `None` when there is no such file, an empty map for an empty one.
pub(crate) fn read(path: &Path) -> Result<Option<Value>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read the kubeconfig {}", path.display())),
    };
    let value = yaml::value(&text).with_context(|| format!("the kubeconfig {} is not valid", path.display()))?;
    match value {
        Value::Null => Ok(Some(Value::Object(serde_json::Map::new()))),
        Value::Object(_) => Ok(Some(value)),
        _ => bail!("the kubeconfig {} is not a map", path.display()),
    }
}

/// Replaces a kubeconfig as a whole; whoever reads it sees the old or the new one. Only its owner may read it.
pub(crate) fn write(path: &Path, value: &Value) -> Result<()> {
    let told = || format!("cannot write the kubeconfig {}", path.display());
    // A link stays a link: the file that it leads to is replaced.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    fs::create_dir_all(directory).with_context(told)?;
    let name = target.file_name().with_context(told)?.to_string_lossy().into_owned();
    let draft: PathBuf = directory.join(format!(".{name}.{}", std::process::id()));
    let written = write_private(&draft, &yaml::to_yaml(value)).and_then(|()| fs::rename(&draft, &target));
    if written.is_err() {
        // What matters is told by the error itself.
        let _ = fs::remove_file(&draft);
    }
    written.with_context(told)
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write as _;

    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
