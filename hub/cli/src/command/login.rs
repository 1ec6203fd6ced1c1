//! `windlass login`: verifies a hub and a token, then writes a kubeconfig context for both.
//!
//! With a root pin no certificate has to be at hand: the hub shows its chain, and its root is believed when the hash of its
//! key is the pin. From then on the root's certificate stands in the kubeconfig, and `kubectl` verifies as any client does.

use std::{fs, io::Read as _, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::Args;
use windlass_protocol::{json, resource::Kind};
use windlass_transport::{identity::RootPin, root::fetch_root};

use crate::{
    args::Global,
    client::{ApiError, Client, path, read_pem, server_url},
    failure::Failure,
    kubeconfig::{self, Current, Files, Session},
    output::Output,
};

/// Options of `login`.
#[derive(Args, Debug)]
pub(crate) struct Login {
    /// Address of the hub, host:port
    #[arg(value_name = "SERVER")]
    address: String,
    /// File that holds the token; - or nothing reads standard input
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// Believe the hub whose root has this pin, sha256:...
    #[arg(long, value_name = "PIN", conflicts_with_all = ["ca_file", "insecure_skip_tls_verify"])]
    root_pin: Option<RootPin>,
    /// Name of the context [default: windlass, or windlass-<host> for a second hub]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Make the context the current one, also when there is another
    #[arg(long)]
    set_current: bool,
}

/// Verifies, then writes.
pub(crate) async fn run(global: &Global, options: Login, output: &mut Output) -> Result<()> {
    let server = server_url(&options.address)?;
    let target = Files::find(global.kubeconfig.as_deref()).target()?;
    let mut config = kubeconfig::read(&target)?.unwrap_or_default();
    let authority = match (&options.root_pin, &global.ca_file) {
        (Some(pin), _) => Some(pinned_root(&server, *pin).await?),
        (None, Some(path)) => Some(read_pem(path)?),
        (None, None) => None,
    };
    let name = match options.name {
        Some(name) => name,
        None => kubeconfig::context_name(&config, &server),
    };
    let session = Session {
        server: server.clone(),
        authority,
        tls_server_name: global.tls_server_name.clone(),
        insecure: global.insecure_skip_tls_verify,
        token: token(global, options.token_file.as_deref(), output)?,
        namespace: global
            .namespace
            .clone()
            .unwrap_or_else(|| windlass_protocol::resource::CONTROL_NAMESPACE.to_owned()),
        name: name.clone(),
    };
    let version = verify(&session, global.request_timeout).await?;
    let current = if options.set_current { Current::Always } else { Current::WhenNone };
    kubeconfig::upsert(&mut config, &session, current);
    kubeconfig::write(&target, &config)?;
    output.say(format!("logged in to {server} ({version})"));
    output.say(format!("context {name:?} is written to {}", target.display()));
    if json::text(&config, &["current-context"]) != name {
        output.say(format!("windlass uses it by itself; kubectl with --context {name}, or log in with --set-current"));
    }
    output.line(name)
}

/// The hub answers, its certificate verifies, and it accepts the token. Gives the hub's version.
async fn verify(session: &Session, timeout: u64) -> Result<String> {
    let mut config = serde_json::Value::Null;
    kubeconfig::upsert(&mut config, session, Current::Always);
    let client = Client::from_kubeconfig(config, timeout).await?;
    let version = client.get("/version").await.map_err(without_advice)?;
    // A token that may not list Applications is a token all the same; only 401 refuses it.
    let probe = format!("{}?limit=1", path(Kind::Application, Some(&session.namespace), None));
    match client.get(&probe).await {
        Ok(_) | Err(ApiError::Forbidden { .. }) => {}
        Err(error) => return Err(without_advice(error)),
    }
    Ok(json::text(&version, &["gitVersion"]).to_owned())
}

/// "Log in again" helps nobody who is logging in.
fn without_advice(error: ApiError) -> anyhow::Error {
    match error {
        ApiError::Unauthorized { server, message } => Failure::new(format!(
            "the hub at {server} does not accept the token ({message}): ask its administrator for one that is valid"
        ))
        .into(),
        ApiError::Untrusted { server, reason } => Failure::new(format!(
            "the certificate of {server} is not trusted: {reason}. Give --root-pin sha256:... or --ca-file FILE, which the \
             hub's administrator has; if only the name differs, --tls-server-name NAME"
        ))
        .into(),
        error => error.into(),
    }
}

async fn pinned_root(server: &str, pin: RootPin) -> Result<Vec<u8>> {
    let uri: http::Uri = server.parse().context("not an address")?;
    let (host, port) = (uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(PORT));
    let der = fetch_root(&format!("{host}:{port}"), pin, FETCH)
        .await
        .with_context(|| format!("{server} cannot be verified by its root pin"))?;
    Ok(pem(&der).into_bytes())
}

/// RFC 7468.
fn pem(der: &[u8]) -> String {
    let mut text = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for line in STANDARD.encode(der).as_bytes().chunks(64) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

/// From `--token` or the environment, from a file, else from standard input.
fn token(global: &Global, file: Option<&std::path::Path>, output: &mut Output) -> Result<String> {
    let text = match (&global.token, file) {
        (Some(token), _) => token.clone(),
        (None, Some(path)) if path.as_os_str() != "-" => {
            fs::read_to_string(path).with_context(|| format!("cannot read the token {}", path.display()))?
        }
        (None, _) => {
            output.ask_for("token (ends with Ctrl-D): ");
            let mut text = String::new();
            std::io::stdin().take(TOKEN_BYTES_MAX).read_to_string(&mut text).context("cannot read the token")?;
            text
        }
    };
    let token = text.trim();
    if token.is_empty() || token.chars().any(|letter| letter.is_control() || letter.is_whitespace()) {
        return Err(
            Failure::usage("there is no token: give --token, --token-file, or write it to standard input").into()
        );
    }
    Ok(token.to_owned())
}

const PORT: u16 = 7443;
const FETCH: Duration = Duration::from_secs(10);
/// Longer than any token.
const TOKEN_BYTES_MAX: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_becomes_pem() {
        let text = pem(&[7; 60]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert_eq!((lines[0], lines[1].len(), lines[2].len()), ("-----BEGIN CERTIFICATE-----", 64, 16));
    }
}
