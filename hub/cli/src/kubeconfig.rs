//! Kubeconfig files: which context to use, and what `login` writes.
//!
//! A file is kept as the JSON value that it is, so that whatever we do not know survives being written. Files are written
//! whole, readable by their owner alone.

mod file;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use windlass_protocol::json;

pub(crate) use self::file::{read, write};
use crate::failure::Failure;

/// Names of contexts that `login` writes begin so.
pub(crate) const CONTEXT: &str = "windlass";

/// Where kubeconfig files are, in the order of their authority.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files {
    paths: Vec<PathBuf>,
    /// A file that was asked for by name has to exist.
    required: bool,
}

impl Files {
    /// The named file, else `KUBECONFIG`, else `~/.kube/config`.
    pub(crate) fn find(named: Option<&Path>) -> Self {
        if let Some(path) = named {
            return Self { paths: vec![path.to_owned()], required: true };
        }
        let listed = std::env::var_os("KUBECONFIG").filter(|value| !value.is_empty());
        if let Some(listed) = listed {
            let paths = std::env::split_paths(&listed).filter(|path| !path.as_os_str().is_empty()).collect();
            return Self { paths, required: false };
        }
        let home = std::env::home_dir().map(|home| home.join(".kube").join("config"));
        Self { paths: home.into_iter().collect(), required: false }
    }

    /// All files as one: of entries with the same name the first wins.
    pub(crate) fn load(&self) -> Result<Value> {
        let mut merged = json!({});
        for path in &self.paths {
            match read(path)? {
                Some(mut value) => {
                    absolute(&mut value, path.parent().unwrap_or_else(|| Path::new("")));
                    merge(&mut merged, value);
                }
                None if self.required => bail!(
                    "the kubeconfig {} does not exist: create one with `windlass login`, or name another with --kubeconfig",
                    path.display()
                ),
                None => {}
            }
        }
        Ok(merged)
    }

    /// The file that `login` changes: the first that exists, else the first.
    pub(crate) fn target(&self) -> Result<PathBuf> {
        let found = self.paths.iter().find(|path| path.exists()).or_else(|| self.paths.first());
        found.cloned().context("there is no home directory to write a kubeconfig to: name a file with --kubeconfig")
    }
}

/// The context to use when none is named: ours before the current one, because the current one is usually a cluster of
/// `kubectl`'s.
///
/// # Errors
/// Several contexts of ours and none of them is current.
pub(crate) fn choose(config: &Value) -> Result<Option<String>> {
    let current = json::text(config, &["current-context"]);
    let ours: Vec<&str> = names(config, "contexts").filter(|name| is_ours(name)).collect();
    if is_ours(current) && ours.contains(&current) {
        return Ok(Some(current.to_owned()));
    }
    match ours.as_slice() {
        [] => Ok(Some(current.to_owned()).filter(|name| !name.is_empty())),
        [only] => Ok(Some((*only).to_owned())),
        several => match several.iter().find(|name| **name == CONTEXT) {
            Some(name) => Ok(Some((*name).to_owned())),
            None => Err(Failure::usage(format!(
                "several hubs are known: choose one with --context ({}), or make it current with `kubectl config use-context`",
                several.join(", ")
            ))
            .into()),
        },
    }
}

/// The entry `name` of `contexts`, `clusters` or `users`: what stands under its `context`, `cluster` or `user`.
pub(crate) fn entry<'a>(config: &'a Value, list: &str, name: &str) -> Option<&'a Value> {
    let entries = config.get(list)?.as_array()?;
    let found = entries.iter().find(|entry| json::text(entry, &["name"]) == name)?;
    found.get(list.strip_suffix('s').unwrap_or(list))
}

/// The names in `contexts`, `clusters` or `users`.
pub(crate) fn names<'a>(config: &'a Value, list: &str) -> impl Iterator<Item = &'a str> {
    let entries = config.get(list).and_then(Value::as_array).into_iter().flatten();
    entries.map(|entry| json::text(entry, &["name"]))
}

/// What `login` found out about a hub.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    /// Name of context, cluster and user.
    pub(crate) name: String,
    /// URL of the hub.
    pub(crate) server: String,
    /// Certificates in PEM.
    pub(crate) authority: Option<Vec<u8>>,
    /// Name in the hub's certificate, when it is not the host.
    pub(crate) tls_server_name: Option<String>,
    /// The certificate is not verified.
    pub(crate) insecure: bool,
    /// Bearer token.
    pub(crate) token: String,
    /// Namespace of the context.
    pub(crate) namespace: String,
}

/// Whether the context becomes the current one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Current {
    /// Yes.
    Always,
    /// Only when no other context is current.
    WhenNone,
}

/// Puts the session's cluster, user and context into a kubeconfig, in place of entries of the same name.
pub(crate) fn upsert(config: &mut Value, session: &Session, current: Current) {
    if !config.is_object() {
        *config = json!({});
    }
    for (key, value) in [("apiVersion", "v1"), ("kind", "Config")] {
        if json::text(config, &[key]).is_empty() {
            json::set(config, &[key], json!(value));
        }
    }
    let mut cluster = json!({"server": session.server});
    if let Some(authority) = &session.authority {
        json::set(&mut cluster, &["certificate-authority-data"], json!(STANDARD.encode(authority)));
    }
    if let Some(name) = &session.tls_server_name {
        json::set(&mut cluster, &["tls-server-name"], json!(name));
    }
    if session.insecure {
        json::set(&mut cluster, &["insecure-skip-tls-verify"], json!(true));
    }
    let name = &session.name;
    put(config, "clusters", name, json!({"name": name, "cluster": cluster}));
    put(config, "users", name, json!({"name": name, "user": {"token": session.token}}));
    let context = json!({"cluster": name, "user": name, "namespace": session.namespace});
    put(config, "contexts", name, json!({"name": name, "context": context}));
    if current == Current::Always || json::text(config, &["current-context"]).is_empty() {
        json::set(config, &["current-context"], json!(name));
    }
}

/// `windlass` for the first hub, `windlass-<host>` when that name belongs to another hub already.
pub(crate) fn context_name(config: &Value, server: &str) -> String {
    let host = host(server);
    let named = format!("{CONTEXT}-{host}");
    let serves = |name: &str| {
        let cluster = entry(config, "contexts", name).map(|context| json::text(context, &["cluster"]))?;
        entry(config, "clusters", cluster).map(|cluster| json::text(cluster, &["server"]) == server)
    };
    if serves(&named) == Some(true) || serves(CONTEXT) == Some(false) { named } else { CONTEXT.to_owned() }
}

/// Host of a URL, without port.
pub(crate) fn host(server: &str) -> String {
    let uri: Option<http::Uri> = server.parse().ok();
    let host = uri.as_ref().and_then(http::Uri::host).unwrap_or(server);
    host.trim_matches(['[', ']']).to_owned()
}

fn is_ours(name: &str) -> bool {
    name == CONTEXT || name.strip_prefix(CONTEXT).is_some_and(|rest| rest.starts_with('-'))
}

/// Puts an entry in place of the one with its name.
fn put(config: &mut Value, list: &str, name: &str, entry: Value) {
    let Value::Object(map) = config else { return };
    let entries = map.entry(list.to_owned()).or_insert_with(|| json!([]));
    if !entries.is_array() {
        *entries = json!([]);
    }
    let Value::Array(entries) = entries else { return };
    match entries.iter_mut().find(|old| json::text(old, &["name"]) == name) {
        Some(old) => *old = entry,
        None => entries.push(entry),
    }
}

fn merge(merged: &mut Value, other: Value) {
    let (Value::Object(merged), Value::Object(other)) = (merged, other) else { return };
    for (key, value) in other {
        match (merged.get_mut(&key), value) {
            (Some(Value::Array(list)), Value::Array(more)) => {
                for entry in more {
                    let name = json::text(&entry, &["name"]);
                    if !list.iter().any(|known| json::text(known, &["name"]) == name) {
                        list.push(entry);
                    }
                }
            }
            (None | Some(Value::Null), value) => {
                merged.insert(key, value);
            }
            (Some(Value::String(text)), value) if text.is_empty() => {
                merged.insert(key, value);
            }
            (Some(_), _) => {}
        }
    }
}

/// Paths inside of a kubeconfig are relative to its directory.
fn absolute(config: &mut Value, directory: &Path) {
    for (list, inner, keys) in [
        ("clusters", "cluster", &["certificate-authority"][..]),
        ("users", "user", &["client-certificate", "client-key", "tokenFile"]),
    ] {
        for entry in config.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(entry) = entry.get_mut(inner) else { continue };
            for key in keys {
                let path = Path::new(json::text(entry, &[key]));
                if !path.as_os_str().is_empty() && path.is_relative() {
                    let path = directory.join(path).to_string_lossy().into_owned();
                    json::set(entry, &[key], json!(path));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
