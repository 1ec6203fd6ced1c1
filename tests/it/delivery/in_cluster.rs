//! The manifest that puts the agent into a cluster: a real API server takes it, and what it grants is enough.
//!
//! There are no containers here, so the agent runs beside the cluster with the token of the ServiceAccount.

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use windlass_tests::ControlPlane;

use crate::fleet::{AgentOptions, Fleet, Hub, Join, Look, Site, automated, same};

const MANIFESTS: &str = r"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {serviceAccountName: web, containers: [{name: web, image: 'example.org/web:1'}]}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: web}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {color: blue}
---
# More than the agent may do itself: the rule for `escalate` and `bind` is what lets it through.
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: web}
rules: [{apiGroups: ['*'], resources: ['*'], verbs: ['*']}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: web}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: web}
subjects: [{kind: ServiceAccount, name: web, namespace: inside}]
---
apiVersion: tests.windlass.io/v1
kind: Widget
metadata: {name: first}
spec: {size: 3}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.tests.windlass.io}
spec:
  group: tests.windlass.io
  scope: Namespaced
  names: {kind: Widget, plural: widgets, singular: widget}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties: {spec: {type: object, properties: {size: {type: integer}}}}
";

pub(super) async fn check() -> Result<()> {
    let mut fleet = Fleet::start([]).await?;
    let plane = ControlPlane::start("inside").await?;
    let image = "example.org/windlass-agent:test";
    let arguments = ["cluster", "add", "inside", "--label", "env=test", "--server-url", plane.url(), "--manifest"];
    let (code, manifest) = fleet.hub.windlass(&[&arguments[..], &["--image", image]].concat()).await?;
    ensure!(code == 0, "windlass cluster add ends with {code}");
    let mut lines = manifest.lines().filter(|line| !line.trim_start().starts_with('#'));
    ensure!(lines.all(|line| !line.contains("${")), "a placeholder is left");
    plane.apply(&manifest).await.context("the API server refuses the manifest")?;
    let kubeconfig = plane.service_account_kubeconfig("windlass-system", "windlass-agent").await?;

    // The Pod that the Deployment makes is admitted under the restricted Pod Security Standard of its namespace.
    let look = Look::new(plane.client());
    look.until("deployments", "windlass-system", "windlass-agent", |deployment| {
        same(deployment, "/status/replicas", 1)
    })
    .await?;

    let join = join(&look).await?;
    let options = AgentOptions { kubeconfig: Some(kubeconfig), ..AgentOptions::default() };
    fleet.sites.push(Site::start(&join, plane, &options)?);
    fleet.hub.connected("inside").await?;
    works(&fleet, &fleet.hub).await?;
    fleet.first()?.print_memory()
}

/// What the Pod would be given.
async fn join(look: &Look) -> Result<Join> {
    let deployment = look.get("deployments", "windlass-system", "windlass-agent").await?;
    let variables = deployment.pointer("/spec/template/spec/containers/0/env").and_then(Value::as_array);
    let variable = |name: &str| {
        let found = variables.into_iter().flatten().find(|variable| variable["name"] == name);
        found.and_then(|variable| variable["value"].as_str()).with_context(|| format!("no {name}"))
    };
    let secret = look.get("secrets", "windlass-system", "windlass-agent-token").await?;
    let token = secret.pointer("/data/token").and_then(Value::as_str).context("no token in the Secret")?;
    Ok(Join {
        token: String::from_utf8(STANDARD.decode(token)?)?,
        pin: variable("WINDLASS_AGENT_ROOT_PIN")?.to_owned(),
        hubs: variable("WINDLASS_AGENT_HUBS")?.split(',').map(str::to_owned).collect(),
    })
}

async fn works(fleet: &Fleet, hub: &Hub) -> Result<()> {
    let repository = fleet.repository("inside")?;
    repository.write("all.yaml", MANIFESTS)?;
    let commit = repository.commit_and_push("first")?;
    hub.apply(&fleet.application("inside", &repository, ".", automated(true, true))?).await?;
    hub.settled("inside", &commit).await?;
    let site = fleet.first()?;
    same(&site.look.get("deployments", "inside", "web").await?, "/status/availableReplicas", 1)?;
    same(&site.look.get("roles", "inside", "web").await?, "/rules/0/verbs/0", "*")?;
    same(&site.look.get("rolebindings", "inside", "web").await?, "/roleRef/name", "web")?;
    same(&site.look.get("widgets", "inside", "first").await?, "/spec/size", 3)?;

    // It may also watch and write them again: a drift of the custom resource is undone.
    let patch = r#"{"spec":{"size":4}}"#;
    site.plane.kubectl(&["-n", "inside", "patch", "widget", "first", "--type=merge", "-p", patch]).await?;
    site.look.until("widgets", "inside", "first", |widget| same(widget, "/spec/size", 3)).await.map(drop)
}
