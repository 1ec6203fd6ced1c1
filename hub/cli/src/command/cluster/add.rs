//! `cluster add`: the Cluster object, a join token, and what to run with it.

use std::collections::BTreeMap;

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use windlass_protocol::{json, resource::Kind, time::Millis};

use crate::{
    client::{Client, path},
    failure::Failure,
    output::{Document, Output},
    view,
};

/// Options of `cluster add`.
#[derive(Args, Debug)]
pub(crate) struct Add {
    /// Name; Applications name it in destination.name
    name: String,
    /// Label KEY=VALUE, which generators select by
    #[arg(short, long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// Annotation KEY=VALUE
    #[arg(long = "annotation", value_name = "KEY=VALUE", value_parser = pair)]
    annotations: Vec<(String, String)>,
    /// API server URL that Applications may name in destination.server
    #[arg(long = "server-url", visible_alias = "api-server", value_name = "URL")]
    servers: Vec<String>,
    /// Reserve the cluster for a project
    #[arg(long, value_name = "PROJECT")]
    project: Option<String>,
    /// Keep a cluster that exists; labels, annotations, URLs and project given here are changed
    #[arg(long)]
    upsert: bool,
    /// How long the token may be redeemed
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    expires: u64,
    /// Print Kubernetes manifests of an agent inside of the cluster instead of a command
    #[arg(long, conflicts_with = "output")]
    manifest: bool,
    /// Image of the agent in the manifests
    #[arg(long, value_name = "IMAGE", default_value = IMAGE)]
    image: String,
    /// Hub that the agent dials, host:port, instead of those that the hub names
    #[arg(long = "hub", value_name = "HOST:PORT")]
    hubs: Vec<String>,
    /// Print the token as JSON or YAML instead
    #[arg(short, long, value_enum)]
    output: Option<Document>,
}

pub(super) async fn run(client: &Client, options: Add, output: &mut Output) -> Result<()> {
    let verb = store(client, &options).await?;
    let address = format!("{}/token", path(Kind::Cluster, None, Some(&options.name)));
    let asked = json!({"kind": "JoinToken", "apiVersion": "windlass.io/v1alpha1",
        "spec": {"expirationSeconds": options.expires}});
    let mut token = client.create(&address, &asked).await?;
    if !options.hubs.is_empty() {
        json::set(&mut token, &["status", "hubs"], json!(options.hubs));
    }
    let join = Join::of(&options.name, &token)?;
    let expires = json::text(&token, &["status", "expirationTimestamp"]);
    output.say(format!("cluster '{}' {verb}; its join token is good for one agent until {expires}", options.name));
    if let Some(format) = options.output {
        return output.document(format, &token);
    }
    if options.manifest {
        output.say("apply what follows in the cluster: windlass cluster add ... --manifest | kubectl apply -f -");
        return output.raw(&join.manifest(&options.image)?);
    }
    output.say("run its agent where it reaches the cluster's API server and the hub (UDP):");
    output.line(join.command())
}

/// Creates the Cluster, or with `--upsert` changes what was given. Says what it did.
async fn store(client: &Client, options: &Add) -> Result<&'static str> {
    let map = |pairs: &[(String, String)]| json!(pairs.iter().cloned().collect::<BTreeMap<_, _>>());
    let (mut metadata, mut spec) = (json!({}), json!({}));
    if !options.labels.is_empty() {
        json::set(&mut metadata, &["labels"], map(&options.labels));
    }
    if !options.annotations.is_empty() {
        json::set(&mut metadata, &["annotations"], map(&options.annotations));
    }
    if !options.servers.is_empty() {
        json::set(&mut spec, &["servers"], json!(options.servers));
    }
    if let Some(project) = &options.project {
        json::set(&mut spec, &["project"], json!(project));
    }
    let patch = json!({"metadata": metadata, "spec": spec});
    json::set(&mut metadata, &["name"], json!(options.name));
    let info = Kind::Cluster.info();
    let object = json!({"apiVersion": info.api_version(), "kind": info.name, "metadata": metadata, "spec": spec});
    match client.create(&path(Kind::Cluster, None, None), &object).await {
        Ok(_) => Ok("added"),
        Err(error) if error.is_already_exists() && options.upsert => {
            if patch == json!({"metadata": {}, "spec": {}}) {
                return Ok("kept");
            }
            client.patch(&path(Kind::Cluster, None, Some(&options.name)), &patch).await?;
            Ok("changed")
        }
        Err(error) if error.is_already_exists() => {
            let name = &options.name;
            let message = format!("cluster '{name}' exists already: for a new token keep it with --upsert");
            Err(Failure::new(message).into())
        }
        Err(error) => Err(error.into()),
    }
}

/// What an agent needs to enrol.
struct Join<'a> {
    cluster: &'a str,
    token: &'a str,
    pin: &'a str,
    hubs: Vec<&'a str>,
}

impl<'a> Join<'a> {
    /// # Errors
    /// The hub names no address that an agent could dial.
    fn of(cluster: &'a str, token: &'a Value) -> Result<Self> {
        let hubs: Vec<&str> = view::items(token, &["status", "hubs"]).filter_map(Value::as_str).collect();
        if hubs.is_empty() {
            return Err(Failure::new("the hub names no address for agents: give one with --hub HOST:PORT").into());
        }
        Ok(Self {
            cluster,
            token: json::text(token, &["status", "token"]),
            pin: json::text(token, &["status", "rootPin"]),
            hubs,
        })
    }

    /// The agent's command line.
    fn command(&self) -> String {
        let mut words = vec!["windlass-agent".to_owned()];
        for hub in &self.hubs {
            words.extend(["--hub".to_owned(), quoted(hub)]);
        }
        for (option, value) in [("--root-pin", self.pin), ("--token", self.token)] {
            words.extend([option.to_owned(), quoted(value)]);
        }
        words.extend(["--data".to_owned(), quoted(&format!("./windlass-agent-{}", self.cluster))]);
        words.push("--kubeconfig \"${KUBECONFIG:-$HOME/.kube/config}\"".to_owned());
        words.join(" ")
    }

    /// The manifests of an agent inside of the cluster.
    ///
    /// # Errors
    /// A value that would not stay a text between quotes.
    fn manifest(&self, image: &str) -> Result<String> {
        let hubs = self.hubs.join(",");
        let values = [
            ("${CLUSTER}", self.cluster),
            ("${TOKEN}", self.token),
            ("${ROOT_PIN}", self.pin),
            ("${HUBS}", hubs.as_str()),
            ("${IMAGE}", image),
        ];
        for (place, value) in values {
            let is_plain = |letter: char| letter.is_ascii_graphic() && !matches!(letter, '"' | '\\');
            if value.is_empty() || !value.chars().all(is_plain) {
                return Err(Failure::new(format!("{value:?} cannot stand for {place} in the manifest")).into());
            }
        }
        let mut text = String::with_capacity(TEMPLATE.len().saturating_add(512));
        for line in TEMPLATE.lines() {
            let mut line = line.to_owned();
            // The comments explain the placeholders; a token has no business in them.
            if !line.trim_start().starts_with('#') {
                for (place, value) in values {
                    line = line.replace(place, value);
                }
            }
            text.push_str(&line);
            text.push('\n');
        }
        Ok(text)
    }
}

/// A word for a POSIX shell.
fn quoted(word: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./:,@%+=[]".contains(letter);
    if !word.is_empty() && word.chars().all(is_plain) && !word.contains(['[', ']']) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

fn duration(text: &str) -> Result<u64, String> {
    match Millis::parse_duration(text) {
        Some(duration) if duration.as_secs() > 0 => Ok(duration.as_secs()),
        _ => Err("write a time such as 30m or 24h".to_owned()),
    }
}

/// The agent's manifests with places to fill in.
const TEMPLATE: &str = include_str!("../../../../../deploy/agent/agent.yaml");

/// Image of the agent of this version.
const IMAGE: &str = concat!("windlass-agent:", env!("CARGO_PKG_VERSION"));

#[cfg(test)]
mod tests {
    use super::*;

    const PIN: &str = "sha256:00ff";

    fn token() -> Value {
        json!({"status": {"token": "wj.abc", "rootPin": PIN, "hubs": ["hub-1:7443", "[::1]:7443"]}})
    }

    #[test]
    fn the_command_is_ready_to_run() {
        let token = token();
        let command = Join::of("eu-1", &token).unwrap().command();
        assert_eq!(
            command,
            "windlass-agent --hub hub-1:7443 --hub '[::1]:7443' --root-pin sha256:00ff --token wj.abc \
             --data ./windlass-agent-eu-1 --kubeconfig \"${KUBECONFIG:-$HOME/.kube/config}\""
        );
        assert!(Join::of("eu-1", &json!({"status": {}})).is_err());
    }

    #[test]
    fn the_manifest_is_filled_in_and_stays_yaml() {
        let token = token();
        let join = Join::of("eu-1", &token).unwrap();
        let text = join.manifest("registry/agent:1").unwrap();
        let documents = windlass_protocol::yaml::values(text.as_bytes(), &Default::default()).unwrap();
        let kinds: Vec<&str> = documents.iter().map(|document| json::text(&document.value, &["kind"])).collect();
        assert_eq!(kinds.first(), Some(&"Namespace"));
        for kind in ["ServiceAccount", "Secret", "Deployment"] {
            assert!(kinds.contains(&kind), "{kinds:?}");
        }
        let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
        let code = code.join("\n");
        assert!(!code.contains("${"), "a place is left in {code}");
        for value in ["wj.abc", PIN, "hub-1:7443,[::1]:7443", "registry/agent:1"] {
            assert!(code.contains(value), "{value}");
        }
        assert_eq!(text.matches("wj.abc").count(), 1);
        assert!(join.manifest("a\"b").is_err());
    }

    #[test]
    fn words_are_quoted_for_the_shell() {
        assert_eq!(quoted("a-b:1"), "a-b:1");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
