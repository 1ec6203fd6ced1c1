//! The peers themselves: if these fail, no other end-to-end test can be believed.

use std::time::Instant;

use anyhow::{Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use windlass_tests::{Access, ControlPlane, GitServer, WAIT_DEADLINE, Workdir, scenario, wait_until};

const DEPLOYMENT: &str = r"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: 'example.org/web:1'}]}
";

const WORKLOADS: &str = r"
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web}
spec:
  replicas: 2
  serviceName: web
  selector: {matchLabels: {app: web, part: set}}
  template:
    metadata: {labels: {app: web, part: set}}
    spec: {containers: [{name: web, image: 'example.org/web:1'}]}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web, part: daemon}}
  template:
    metadata: {labels: {app: web, part: daemon}}
    spec: {containers: [{name: web, image: 'example.org/web:1'}]}
---
apiVersion: batch/v1
kind: Job
metadata: {name: good}
spec:
  template:
    spec: {restartPolicy: Never, containers: [{name: job, image: 'example.org/job:1'}]}
---
apiVersion: batch/v1
kind: Job
metadata: {name: bad}
spec:
  backoffLimit: 0
  template:
    spec: {restartPolicy: Never, containers: [{name: job, image: 'example.org/job:broken'}]}
";

#[test]
fn control_planes_run_deployments() -> Result<()> {
    scenario(async {
        let started = Instant::now();
        let [east, west] = ControlPlane::start_all(["east", "west"]).await?;
        eprintln!("two control planes in {:.1} s", started.elapsed().as_secs_f64());

        east.apply(DEPLOYMENT).await?;
        available(&east, 3).await?;
        let others = west.kubectl(&["get", "deployments", "--output=name"]).await?;
        ensure!(others.is_empty(), "planes over one etcd must be separate, west has {others}");
        Ok(())
    })
}

#[test]
fn a_control_plane_survives_an_outage_and_tells_a_bad_image() -> Result<()> {
    scenario(async {
        let mut plane = ControlPlane::start("outage").await?;
        plane.apply(DEPLOYMENT).await?;
        available(&plane, 3).await?;

        plane.stop_api_server()?;
        let error = plane.kubectl(&["get", "deployments", "--request-timeout=2s"]).await;
        ensure!(error.is_err(), "a stopped API server must not answer");
        plane.start_api_server().await?;
        available(&plane, 3).await?;

        plane.kubectl(&["set", "image", "deployment/web", "web=example.org/web:broken"]).await?;
        wait_until(WAIT_DEADLINE, "a crashing pod", async || {
            let states = "--output=jsonpath={.items[*].status.containerStatuses[*].state.waiting.reason}";
            let states = plane.kubectl(&["get", "pods", states]).await?;
            ensure!(states.contains("CrashLoopBackOff"), "{states}");
            Ok(Some(()))
        })
        .await
    })
}

#[test]
fn every_kind_of_workload_gets_its_pods() -> Result<()> {
    scenario(async {
        let plane = ControlPlane::start("workloads").await?;
        plane.apply(WORKLOADS).await?;
        for (resource, path, wanted) in [
            ("statefulset/web", "{.status.readyReplicas}", "2"),
            ("daemonset/web", "{.status.numberReady}", "1"),
            ("job/good", "{.status.conditions[?(@.type=='Complete')].status}", "True"),
            ("job/bad", "{.status.conditions[?(@.type=='Failed')].status}", "True"),
        ] {
            wait_until(WAIT_DEADLINE, resource, async || {
                let output = format!("--output=jsonpath={path}");
                let seen = plane.kubectl(&["get", resource, &output]).await?;
                ensure!(seen == wanted, "{path} is {seen:?}");
                Ok(Some(()))
            })
            .await?;
        }
        plane.kubectl(&["delete", "statefulset/web", "daemonset/web"]).await?;
        wait_until(WAIT_DEADLINE, "garbage collection of the pods", async || {
            let pods = plane.kubectl(&["get", "pods", "--selector=app=web", "--output=name"]).await?;
            ensure!(pods.is_empty(), "{pods}");
            Ok(Some(()))
        })
        .await
    })
}

#[test]
fn a_service_account_may_do_only_what_rbac_says() -> Result<()> {
    scenario(async {
        let plane = ControlPlane::start("rbac").await?;
        plane.kubectl(&["create", "serviceaccount", "reader"]).await?;
        let binding = ["create", "rolebinding", "reader", "--clusterrole=view", "--serviceaccount=default:reader"];
        plane.kubectl(&binding).await?;
        let config = plane.service_account_kubeconfig("default", "reader").await?;
        let config = format!("--kubeconfig={}", config.display());

        let who = plane.kubectl(&[&config, "auth", "whoami", "--output=jsonpath={.status.userInfo.username}"]).await?;
        ensure!(who == "system:serviceaccount:default:reader", "{who}");
        plane.kubectl(&[&config, "get", "configmaps"]).await?;
        let denied = plane.kubectl(&[&config, "get", "secrets"]).await;
        let denied = denied.err().map(|error| error.to_string()).unwrap_or_default();
        ensure!(denied.contains("forbidden"), "a viewer must not read secrets: {denied}");
        Ok(())
    })
}

#[test]
fn a_git_server_asks_for_credentials() -> Result<()> {
    scenario(async {
        let open = Workdir::new("git-open")?;
        let server = GitServer::start(open.path()).await?;
        let repo = server.create("config")?;
        repo.write("apps/web/deployment.yaml", DEPLOYMENT)?;
        let first = repo.commit_and_push("add web")?;
        ensure!(remote_head(&repo, repo.url())? == first, "the push must arrive");

        let closed = Workdir::new("git-closed")?;
        let access = Access::Basic { user: "git".into(), password: "right".into() };
        let server = GitServer::start_with(closed.path(), access).await?;
        let repo = server.create("config")?;
        // Large enough that git sends the push in chunks.
        let noise: String = (0..400_000_u32).map(|n| format!("{:x} ", n.wrapping_mul(2_654_435_761))).collect();
        repo.write("large.txt", &noise)?;
        let pushed = repo.commit_and_push("add a large file")?;
        ensure!(remote_head(&repo, repo.remote())? == pushed, "the push must arrive");
        let wrong = repo.remote().replace("right", "wrong");
        for url in [repo.url(), &wrong] {
            ensure!(remote_head(&repo, url).is_err(), "{url} must be refused");
        }
        let refused = server.requests()?.iter().filter(|line| line.starts_with("401")).count();
        ensure!(refused >= 2, "{:?}", server.requests()?);

        let access = Access::Bearer { token: "t0ken".into() };
        let server = GitServer::start_with(&closed.join("."), access).await?;
        let repo = server.create("by-token")?;
        repo.commit_and_push("an empty commit")?;
        Ok(())
    })
}

fn remote_head(repo: &windlass_tests::GitRepo, url: &str) -> Result<String> {
    let listed = repo.git(&["ls-remote", url, "refs/heads/main"])?;
    Ok(listed.split_whitespace().next().unwrap_or_default().to_owned())
}

async fn available(plane: &ControlPlane, wanted: i32) -> Result<()> {
    let deployments: Api<Deployment> = Api::default_namespaced(plane.client());
    wait_until(WAIT_DEADLINE, format!("{}: deployment web", plane.name()), async || {
        let status = deployments.get_status("web").await?.status.unwrap_or_default();
        let available = status.available_replicas.unwrap_or_default();
        ensure!(available == wanted, "{available} of {wanted} replicas available");
        Ok(Some(()))
    })
    .await
}
