//! The cluster generator: one set of parameters for each registered Cluster that the selector matches.
//!
//! Labels are those that an administrator set; nothing that an agent says about itself is read. In Argo CD the local cluster has
//! no labels unless it has a Secret; here `in-cluster` is a Cluster like every other.

use serde_json::{Value, json};
use windlass_protocol::resource::ClusterGenerator;
use windlass_template::{Params, flatten};

use super::{ClusterView, GenerateCause, append_values, normalize};

pub(super) fn params(generator: &ClusterGenerator, clusters: &[ClusterView]) -> Result<Vec<Params>, GenerateCause> {
    let selector = generator.selector.clone().unwrap_or_default();
    let is_selected = |cluster: &&ClusterView| selector.matches(|key| cluster.labels.get(key).map(String::as_str));
    let mut selected: Vec<&ClusterView> = clusters.iter().filter(is_selected).collect();
    selected.sort_by(|left, right| left.name.cmp(&right.name));
    let mut result = Vec::with_capacity(selected.len());
    for cluster in selected {
        let mut params = cluster_params(cluster);
        append_values(&generator.values, &mut params)?;
        result.push(params);
    }
    Ok(if generator.flat_list { vec![flat_list(&result)] } else { result })
}

fn cluster_params(cluster: &ClusterView) -> Params {
    let mut params = Params::new();
    params.insert("name".to_owned(), cluster.name.clone());
    params.insert("nameNormalized".to_owned(), normalize(&cluster.name));
    params.insert("server".to_owned(), cluster.server.clone());
    params.insert("project".to_owned(), cluster.project.clone());
    for (key, value) in &cluster.labels {
        params.insert(format!("metadata.labels.{key}"), value.clone());
    }
    for (key, value) in &cluster.annotations {
        params.insert(format!("metadata.annotations.{key}"), value.clone());
    }
    params
}

/// All clusters as one set of parameters: `clusters.0.name` and so on.
fn flat_list(clusters: &[Params]) -> Params {
    let list: Vec<Value> = clusters.iter().map(|params| json!(params)).collect();
    let mut params = Params::new();
    flatten("clusters", &Value::Array(list), &mut params);
    params
}
