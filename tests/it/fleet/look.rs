//! Reads objects of an API server, whoever serves it, as they are.

use anyhow::{Context as _, Result, ensure};
use kube::Client;
use serde_json::Value;
use windlass_tests::{WAIT_DEADLINE, wait_until};

/// Reads by resource, namespace and name.
#[derive(Clone)]
pub(crate) struct Look {
    client: Client,
}

impl Look {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// An object; `None` when it is not there.
    pub(crate) async fn find(&self, resource: &str, namespace: &str, name: &str) -> Result<Option<Value>> {
        let request = http::Request::get(path(resource, namespace, name)).body(Vec::new())?;
        match self.client.request::<Value>(request).await {
            Ok(object) => Ok(Some(object)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {resource} {namespace}/{name}")),
        }
    }

    /// An object that has to be there.
    pub(crate) async fn get(&self, resource: &str, namespace: &str, name: &str) -> Result<Value> {
        self.find(resource, namespace, name).await?.with_context(|| format!("no {resource} {namespace}/{name}"))
    }

    /// All objects of a namespace.
    pub(crate) async fn list(&self, resource: &str, namespace: &str) -> Result<Vec<Value>> {
        let list = self.get(resource, namespace, "").await?;
        Ok(list.pointer("/items").and_then(Value::as_array).cloned().unwrap_or_default())
    }

    /// Waits until an object is there and passes the check.
    pub(crate) async fn until(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        check: impl Fn(&Value) -> Result<()>,
    ) -> Result<Value> {
        wait_until(WAIT_DEADLINE, format!("{resource} {namespace}/{name}"), async || {
            let object = self.get(resource, namespace, name).await?;
            check(&object)?;
            Ok(Some(object))
        })
        .await
    }

    /// Waits until an object is gone.
    pub(crate) async fn until_gone(&self, resource: &str, namespace: &str, name: &str) -> Result<()> {
        wait_until(WAIT_DEADLINE, format!("the end of {resource} {namespace}/{name}"), async || {
            ensure!(self.find(resource, namespace, name).await?.is_none(), "still there");
            Ok(Some(()))
        })
        .await
    }
}

/// Compares what stands at a JSON pointer with what should stand there.
pub(crate) fn same(object: &Value, pointer: &str, expected: impl Into<Value>) -> Result<()> {
    let (found, expected) = (object.pointer(pointer).unwrap_or(&Value::Null), expected.into());
    ensure!(*found == expected, "{pointer} is {found}, not {expected}");
    Ok(())
}

/// What an object is: its uid and its resourceVersion.
pub(crate) fn revision(object: &Value) -> (String, String) {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    (text("/metadata/uid"), text("/metadata/resourceVersion"))
}

fn path(resource: &str, namespace: &str, name: &str) -> String {
    let group = match resource {
        "deployments" => "apis/apps/v1",
        "roles" | "rolebindings" => "apis/rbac.authorization.k8s.io/v1",
        "customresourcedefinitions" => "apis/apiextensions.k8s.io/v1",
        "applications" | "applicationsets" | "appprojects" => "apis/argoproj.io/v1alpha1",
        "clusters" | "rollouts" => "apis/windlass.io/v1alpha1",
        "widgets" => "apis/tests.windlass.io/v1",
        _ => "api/v1",
    };
    let namespace = if namespace.is_empty() { String::new() } else { format!("/namespaces/{namespace}") };
    let name = if name.is_empty() { String::new() } else { format!("/{name}") };
    format!("/{group}{namespace}/{resource}{name}")
}
