//! `windlass-hub token`: asks a running hub for a join token, with the administrator's kubeconfig that `init` wrote.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use windlass_protocol::{json, yaml};

/// A hub answers within this time, also across an election.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(15);

/// A new hub token.
///
/// # Errors
/// When the kubeconfig cannot be used, or the hub does not give one.
pub(crate) async fn hub_token(kubeconfig: &Path, seconds: u64) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(kubeconfig).with_context(|| {
        format!(
            "cannot read {}: run this on the node where `init` ran, or use `windlass hub token`",
            kubeconfig.display()
        )
    })?;
    let config = yaml::value(&text).with_context(|| format!("{} is no kubeconfig", kubeconfig.display()))?;
    let first = |list: &str, path: &[&str]| -> Option<String> {
        let entry = config.get(list)?.get(0)?;
        Some(json::text(entry, path).to_owned()).filter(|text| !text.is_empty())
    };
    let server = first("clusters", &["cluster", "server"]).context("the kubeconfig names no server")?;
    let roots =
        first("clusters", &["cluster", "certificate-authority-data"]).context("the kubeconfig holds no root")?;
    let token = first("users", &["user", "token"]).context("the kubeconfig holds no token")?;
    let roots = STANDARD.decode(roots).context("the kubeconfig's root is damaged")?;
    let client = reqwest::Client::builder()
        .tls_certs_only(reqwest::Certificate::from_pem_bundle(&roots)?)
        .timeout(ANSWER_TIME_MAX)
        .build()?;
    let url = format!("{server}/apis/windlass.io/v1alpha1/hubtokens");
    let question = json!({"spec": {"expirationSeconds": seconds}});
    let body = serde_json::to_vec(&question)?;
    let request = client.post(&url).bearer_auth(token).header("content-type", "application/json").body(body);
    let answer = request.send().await.with_context(|| format!("no hub answers at {server}"))?;
    let code = answer.status();
    let answer: Value = serde_json::from_slice(&answer.bytes().await?).unwrap_or_default();
    if !code.is_success() {
        bail!("the hub refused ({code}): {}", json::text(&answer, &["message"]));
    }
    Ok(json::text(&answer, &["status", "token"]).to_owned())
}
