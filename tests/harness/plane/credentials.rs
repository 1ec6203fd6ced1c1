//! What a control plane knows its clients by: one administrator's token, the key that
//! signs the tokens of service accounts, and the kubeconfigs made of them.

use std::{fs::File, io::Read as _};

use anyhow::{Context as _, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

/// A fresh random token.
pub(super) fn token() -> Result<String> {
    let bytes: [u8; 16] = random()?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A fresh P-256 key in PEM: the ECPrivateKey structure of RFC 5915 without its optional
/// public key, which readers compute. Enough for Kubernetes, no crypto library needed.
pub(super) fn signing_key() -> Result<String> {
    const BEFORE: [u8; 7] = [0x30, 0x31, 0x02, 0x01, 0x01, 0x04, 0x20];
    const CURVE: [u8; 12] = [0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    let mut scalar: [u8; 32] = random()?;
    // Below the order of the curve, which begins with four bytes of ones, and not zero.
    scalar[0] = 0x5a;
    let der = [&BEFORE[..], &scalar, &CURVE].concat();
    let text = STANDARD.encode(der);
    let (first, rest) = text.split_at(64);
    Ok(format!("-----BEGIN EC PRIVATE KEY-----\n{first}\n{rest}\n-----END EC PRIVATE KEY-----\n"))
}

/// A kubeconfig with one context. It is JSON, which every reader of YAML reads.
pub(super) fn kubeconfig(name: &str, url: &str, authority_pem: &[u8], token: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": {
            "server": url,
            "certificate-authority-data": STANDARD.encode(authority_pem),
        }}],
        "users": [{"name": name, "user": {"token": token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
    })
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes)).context("read random bytes")?;
    Ok(bytes)
}
