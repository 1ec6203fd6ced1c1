//! From options, environment and kubeconfig to a client.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use windlass_protocol::json;

use super::{Client, NAMESPACE};
use crate::{
    args::Global,
    failure::Failure,
    kubeconfig::{self, Files},
};

/// Port of the API when an address names none.
const PORT: u16 = 7443;
/// Name of the entries that are made up from the options.
const CHOSEN: &str = "chosen";

pub(super) async fn connect(global: &Global) -> Result<Client> {
    let files = Files::find(global.kubeconfig.as_deref());
    // With server and token given nothing of the file is needed, so that it may be absent.
    let complete = global.server.is_some() && global.token.is_some();
    let known = match files.load() {
        Ok(config) => config,
        Err(_) if complete => json!({}),
        Err(error) => return Err(error),
    };
    let chosen = choose(global, &known)?;
    let namespace = global.namespace.clone().unwrap_or(chosen.namespace);
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": CHOSEN,
        "clusters": [{"name": CHOSEN, "cluster": chosen.cluster}],
        "users": [{"name": CHOSEN, "user": chosen.user}],
        "contexts": [{"name": CHOSEN, "context": {"cluster": CHOSEN, "user": CHOSEN, "namespace": namespace}}],
    });
    let client = of_kubeconfig(config, global.request_timeout).await?;
    Ok(Client { user: chosen.user_name, ..client })
}

/// The hub of the current context of a kubeconfig.
pub(super) async fn of_kubeconfig(config: Value, timeout_seconds: u64) -> Result<Client> {
    let name = json::text(&config, &["current-context"]);
    let context = kubeconfig::entry(&config, "contexts", name).cloned().unwrap_or_default();
    let cluster =
        kubeconfig::entry(&config, "clusters", json::text(&context, &["cluster"])).cloned().unwrap_or_default();
    let server = json::text(&cluster, &["server"]).to_owned();
    let namespace = json::text(&context, &["namespace"]).to_owned();
    let config: Kubeconfig = serde_json::from_value(config).context("the kubeconfig is not valid")?;
    let mut config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default())
        .await
        .context("the kubeconfig cannot be used")?;
    config.connect_timeout = Some(CONNECT);
    // Commands retry where it makes sense; elsewhere a person wants to know now.
    config.default_retry = false;
    let inner = kube::Client::try_from(config).context("cannot set up the connection")?;
    let timeout = Duration::from_secs(timeout_seconds.max(1));
    Ok(Client { inner, server, namespace, user: String::new(), timeout })
}

/// The URL of a hub written as `host`, `host:port` or URL.
///
/// # Errors
/// Not an address; or plain http to another machine, which would show the token to everyone in between.
pub(crate) fn server_url(text: &str) -> Result<String> {
    let bad = || Failure::usage(format!("{text:?} is no address of a hub: write host, host:port or https://host:port"));
    let text = text.trim();
    let url = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let url = url.trim_end_matches('/').to_owned();
    let uri: http::Uri = url.parse().map_err(|_| bad())?;
    let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(bad)?;
    let path = uri.path().trim_end_matches('/');
    match uri.scheme_str() {
        Some("https") => {
            let port = uri.port_u16().unwrap_or(PORT);
            Ok(format!("https://{host}:{port}{path}"))
        }
        Some("http") if is_loopback(host) => Ok(url),
        Some("http") => Err(Failure::usage(format!(
            "plain http to {host} would show your token to everyone in between: use https://"
        ))
        .into()),
        _ => Err(bad().into()),
    }
}

/// What a client is made of: entries of a kubeconfig.
struct Chosen {
    cluster: Value,
    user: Value,
    user_name: String,
    namespace: String,
}

fn choose(global: &Global, known: &Value) -> Result<Chosen> {
    let context_name = match (&global.context, &global.server) {
        (Some(name), _) => Some(name.clone()),
        (None, Some(server)) => serving(known, &server_url(server)?),
        (None, None) => kubeconfig::choose(known)?,
    };
    let context = match &context_name {
        Some(name) => kubeconfig::entry(known, "contexts", name).ok_or_else(|| unknown_context(known, name))?.clone(),
        None if global.server.is_some() => json!({}),
        None => {
            let message = "no hub is known here: log in with `windlass login HOST:PORT`, or give --server and --token";
            return Err(Failure::usage(message).into());
        }
    };
    let part = |list: &str, key: &str| {
        kubeconfig::entry(known, list, json::text(&context, &[key])).cloned().unwrap_or_else(|| json!({}))
    };
    let mut cluster = part("clusters", "cluster");
    if let Some(server) = &global.server {
        json::set(&mut cluster, &["server"], json!(server_url(server)?));
    }
    if json::text(&cluster, &["server"]).is_empty() {
        let name = context_name.unwrap_or_default();
        return Err(Failure::usage(format!("context {name:?} of the kubeconfig names no cluster with a server")).into());
    }
    trust(global, &mut cluster)?;
    let user = match &global.token {
        Some(token) => json!({"token": token.trim()}),
        None => part("users", "user"),
    };
    let user_name = Some(json::text(&context, &["user"])).filter(|name| !name.is_empty()).unwrap_or("windlass");
    let namespace = Some(json::text(&context, &["namespace"])).filter(|name| !name.is_empty()).unwrap_or(NAMESPACE);
    Ok(Chosen { cluster, user, user_name: user_name.to_owned(), namespace: namespace.to_owned() })
}

/// Options about the certificate go before the context's.
fn trust(global: &Global, cluster: &mut Value) -> Result<()> {
    if let Some(path) = &global.ca_file {
        drop(json::remove(cluster, &["certificate-authority"]));
        json::set(cluster, &["certificate-authority-data"], json!(STANDARD.encode(read_pem(path)?)));
    }
    if let Some(name) = &global.tls_server_name {
        json::set(cluster, &["tls-server-name"], json!(name));
    }
    if global.insecure_skip_tls_verify {
        drop(json::remove(cluster, &["certificate-authority"]));
        drop(json::remove(cluster, &["certificate-authority-data"]));
        json::set(cluster, &["insecure-skip-tls-verify"], json!(true));
    }
    Ok(())
}

/// A file of certificates.
pub(crate) fn read_pem(path: &Path) -> Result<Vec<u8>> {
    let pem = fs::read(path).with_context(|| format!("cannot read the certificates {}", path.display()))?;
    if !pem.windows(MARK.len()).any(|part| part == MARK) {
        let message = format!("{} holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)", path.display());
        return Err(Failure::usage(message).into());
    }
    Ok(pem)
}

/// The context for a server, ours before others.
fn serving(known: &Value, server: &str) -> Option<String> {
    let serves = |name: &&str| {
        let context = kubeconfig::entry(known, "contexts", name);
        let cluster = context.map_or("", |context| json::text(context, &["cluster"]));
        let url = kubeconfig::entry(known, "clusters", cluster).map_or("", |cluster| json::text(cluster, &["server"]));
        !url.is_empty() && url.trim_end_matches('/') == server
    };
    let mut found: Vec<&str> = kubeconfig::names(known, "contexts").filter(serves).collect();
    found.sort_by_key(|name| !name.starts_with(kubeconfig::CONTEXT));
    found.first().map(|name| (*name).to_owned())
}

fn unknown_context(known: &Value, name: &str) -> Failure {
    let names: Vec<&str> = kubeconfig::names(known, "contexts").collect();
    let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    Failure::usage(format!("the kubeconfig has no context {name:?}; it has: {names}"))
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

const CONNECT: Duration = Duration::from_secs(10);
const MARK: &[u8] = b"-----BEGIN CERTIFICATE-----";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_become_urls() {
        for (text, expected) in [
            ("hub", "https://hub:7443"),
            ("hub:8443", "https://hub:8443"),
            ("https://hub/", "https://hub:7443"),
            ("[::1]:9", "https://[::1]:9"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ] {
            assert_eq!(server_url(text).unwrap(), expected);
        }
        for text in ["", "http://hub:7443", "ftp://hub", "a b", "https://"] {
            assert!(server_url(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_server_given_takes_certificate_and_token_of_its_context_only() {
        let known = json!({
            "contexts": [{"name": "other", "context": {"cluster": "o", "user": "o"}},
                {"name": "windlass", "context": {"cluster": "w", "user": "w", "namespace": "ns"}}],
            "clusters": [{"name": "o", "cluster": {"server": "https://o:7443"}},
                {"name": "w", "cluster": {"server": "https://w:7443", "certificate-authority-data": "UEVN"}}],
            "users": [{"name": "o", "user": {"token": "to"}}, {"name": "w", "user": {"token": "tw"}}],
        });
        let global = |server: &str| Global { server: Some(server.to_owned()), ..Global::default() };
        let chosen = choose(&global("w"), &known).unwrap();
        assert_eq!((chosen.user, chosen.namespace), (json!({"token": "tw"}), "ns".to_owned()));
        let chosen = choose(&global("stranger"), &known).unwrap();
        assert_eq!(chosen.user, json!({}), "a token is not shown to a stranger");
        assert_eq!(chosen.cluster, json!({"server": "https://stranger:7443"}));
        let missing = Global { context: Some("nope".to_owned()), ..Global::default() };
        assert!(choose(&missing, &known).err().unwrap().to_string().contains("other, windlass"));
        assert!(choose(&Global::default(), &json!({})).err().unwrap().to_string().contains("windlass login"));
    }
}
