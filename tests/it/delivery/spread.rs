//! An ApplicationSet over all clusters, and an Application beside it: content, tracking, namespace, status, and the time
//! from `git push` to applied.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use serde_json::{Value, json};
use windlass_tests::{GitRepo, WAIT_DEADLINE, wait_until};

use crate::fleet::{Fleet, automated, same};

const DEPLOYMENT: &str = r"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: example.org/web
        envFrom: [{configMapRef: {name: settings}}]
";

const SERVICE: &str = r"
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
";

const OVERLAY: &str = r"
resources: [../../base]
namePrefix: prod-
commonAnnotations: {team: shop}
images: [{name: example.org/web, newTag: v1}]
replicas: [{name: web, count: 2}]
configMapGenerator: [{name: settings, literals: [color=blue]}]
patches:
- target: {kind: Service}
  patch: |-
    - {op: replace, path: /spec/ports/0/port, value: 8080}
";

/// Pushes whose way is measured.
const PUSHES: usize = 5;

pub(super) async fn check(fleet: &Fleet) -> Result<()> {
    let shop = fleet.repository("shop")?;
    shop.write("base/kustomization.yaml", "resources: [deployment.yaml, service.yaml]\n")?;
    shop.write("base/deployment.yaml", DEPLOYMENT)?;
    shop.write("base/service.yaml", SERVICE)?;
    shop.write("overlays/prod/kustomization.yaml", OVERLAY)?;
    shop.write("plain/settings.yaml", &settings("first"))?;
    let commit = shop.commit_and_push("first")?;

    fleet.hub.apply(&application_set(&shop)).await?;
    fleet.hub.apply(&fleet.application("plain", &shop, "plain", automated(true, true))?).await?;
    for site in &fleet.sites {
        let name = format!("shop-{}", site.name());
        let application = fleet.hub.settled(&name, &commit).await?;
        ensure!(!application["status"]["resources"].as_array().is_none_or(Vec::is_empty), "no resources are listed");
        same(&application, "/status/sourceType", "Kustomize")?;
    }
    fleet.hub.settled("plain", &commit).await?;
    try_join_all(fleet.sites.iter().map(overlay_is_there)).await?;
    plain_is_there(fleet).await?;

    measure(fleet, &shop).await
}

async fn overlay_is_there(site: &crate::fleet::Site) -> Result<()> {
    let deployment = site.look.get("deployments", "shop", "prod-web").await?;
    same(&deployment, "/spec/replicas", 2)?;
    same(&deployment, "/spec/template/spec/containers/0/image", "example.org/web:v1")?;
    same(&deployment, "/metadata/annotations/team", "shop")?;
    let tracking = format!("shop-{}:apps/Deployment:shop/prod-web", site.name());
    same(&deployment, "/metadata/annotations/argocd.argoproj.io~1tracking-id", tracking)?;
    same(&deployment, "/status/availableReplicas", 2)?;
    let manager = deployment["metadata"]["managedFields"].as_array().into_iter().flatten();
    ensure!(
        manager.clone().any(|entry| entry["manager"] == "windlass" && entry["operation"] == "Apply"),
        "not applied by windlass"
    );
    let service = site.look.get("services", "shop", "prod-web").await?;
    same(&service, "/spec/ports/0/port", 8080)?;
    // The generated name carries a hash, and the Deployment refers to it.
    let name = deployment
        .pointer("/spec/template/spec/containers/0/envFrom/0/configMapRef/name")
        .and_then(Value::as_str)
        .context("the reference to the settings")?;
    ensure!(name.starts_with("prod-settings-") && name.len() > "prod-settings-".len(), "{name}");
    same(&site.look.get("configmaps", "shop", name).await?, "/data/color", "blue")?;
    let namespace = site.look.get("namespaces", "", "shop").await?;
    ensure!(
        namespace.pointer("/metadata/annotations/argocd.argoproj.io~1tracking-id").is_none(),
        "a namespace made by CreateNamespace belongs to nobody"
    );
    Ok(())
}

async fn plain_is_there(fleet: &Fleet) -> Result<()> {
    let [first, others @ ..] = fleet.sites.as_slice() else { anyhow::bail!("a fleet has a cluster") };
    let map = first.look.get("configmaps", "plain", "settings").await?;
    same(&map, "/data/value", "first")?;
    same(&map, "/metadata/annotations/argocd.argoproj.io~1tracking-id", "plain:/ConfigMap:plain/settings")?;
    for other in others {
        ensure!(other.look.find("configmaps", "plain", "settings").await?.is_none(), "in a foreign cluster");
    }
    Ok(())
}

/// Pushes changes; the clock starts when `git push` returns and stops when the last cluster serves the new content.
async fn measure(fleet: &Fleet, shop: &GitRepo) -> Result<()> {
    let mut polled = Vec::new();
    let mut hooked = Vec::new();
    for round in 0..2 * PUSHES {
        let tag = format!("v1-{round}");
        shop.write("overlays/prod/kustomization.yaml", &OVERLAY.replace("newTag: v1", &format!("newTag: {tag}")))?;
        let commit = shop.commit_and_push(&tag)?;
        let pushed = Instant::now();
        if round % 2 == 1 {
            fleet.hub.push_event(shop.url(), &commit).await?;
        }
        try_join_all(fleet.sites.iter().map(|site| has_tag(site, &tag))).await?;
        let times = if round % 2 == 1 { &mut hooked } else { &mut polled };
        times.push(pushed.elapsed().as_millis());
        for site in &fleet.sites {
            fleet.hub.settled(&format!("shop-{}", site.name()), &commit).await?;
        }
    }
    println!("measured: git push to applied in every cluster, polled each second: {} ms", figures(polled));
    println!("measured: git push to applied in every cluster, by webhook: {} ms", figures(hooked));
    Ok(())
}

async fn has_tag(site: &crate::fleet::Site, tag: &str) -> Result<()> {
    wait_until(WAIT_DEADLINE, format!("{tag} in {}", site.name()), async || {
        let deployment = site.look.get("deployments", "shop", "prod-web").await?;
        same(&deployment, "/spec/template/spec/containers/0/image", format!("example.org/web:{tag}"))?;
        Ok(Some(()))
    })
    .await
}

fn figures(mut times: Vec<u128>) -> String {
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    format!("median {median}, of {times:?}")
}

fn settings(value: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings}}\ndata: {{value: {value}}}\n")
}

fn application_set(shop: &GitRepo) -> Value {
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "ApplicationSet",
        "metadata": {"name": "shop", "namespace": "argocd"},
        "spec": {
            "generators": [{"clusters": {"selector": {"matchLabels": {"env": "test"}}}}],
            "template": {
                "metadata": {"name": "shop-{{name}}"},
                "spec": {
                    "project": "default",
                    "source": {"repoURL": shop.url(), "path": "overlays/prod", "targetRevision": "main"},
                    "destination": {"server": "{{server}}", "namespace": "shop"},
                    "syncPolicy": automated(true, true),
                },
            },
        },
    })
}
