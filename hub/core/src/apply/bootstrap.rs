//! The first entry of a group: what exists before any user does.

use serde_json::json;
use windlass_protocol::{
    ids::Epoch,
    resource::{AppProjectSpec, CONTROL_NAMESPACE, Kind},
};

use super::Transaction;
use crate::{
    command::{Rejection, Write},
    state::ObjectKey,
};

impl Transaction {
    pub(super) fn bootstrap(&mut self, cluster_id: &str, trust_domain: &str, uids: &[String]) -> Result<(), Rejection> {
        if !self.state.meta.cluster_id.is_empty() {
            let id = &self.state.meta.cluster_id;
            return Err(Rejection::Precondition(format!("the group {id} is bootstrapped already")));
        }
        self.state.meta.version = crate::STATE_VERSION;
        cluster_id.clone_into(&mut self.state.meta.cluster_id);
        trust_domain.clone_into(&mut self.state.meta.trust_domain);
        self.state.meta.epoch = Epoch(1);
        let namespace = |name: &str| {
            let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            (ObjectKey::new(Kind::Namespace, "", name), body)
        };
        let project = json!({
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "AppProject",
            "metadata": {"name": "default", "namespace": CONTROL_NAMESPACE},
            "spec": AppProjectSpec::allow_all(),
        });
        let objects = [
            namespace("default"),
            namespace(CONTROL_NAMESPACE),
            (ObjectKey::new(Kind::AppProject, CONTROL_NAMESPACE, "default"), project),
        ];
        let (given, needed) = (uids.len(), objects.len());
        if given < needed {
            return Err(Rejection::Invalid(format!("bootstrap needs {needed} uids, not {given}")));
        }
        for ((key, body), uid) in objects.into_iter().zip(uids) {
            self.write(&Write::Create { key, uid: uid.clone(), body: body.to_string(), sealed: None })?;
        }
        Ok(())
    }
}
