//! Bundles on one node, and on several that reach each other in memory.

mod hubs;
mod several;

use serde_json::json;

use super::*;
use crate::store::blobs::BlobOptions;

pub(super) fn bundles(folder: &std::path::Path) -> Bundles {
    let blobs = BlobStore::open(folder, BlobOptions::default()).unwrap();
    let limits = BundleLimits { resources: 3, manifest_bytes: 10_000, bundle_bytes: 20_000 };
    Bundles::new(blobs, Arc::new(Sealer::new(&[1; 32]).unwrap()), limits)
}

#[tokio::test]
async fn secrets_are_sealed_on_disk_and_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let bundles = bundles(folder.path());
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"k": "aHVudGVyMg=="}});
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}});
    let manifests = vec![secret, config];
    let (digest, _lease) = bundles.put(&manifests).unwrap();
    assert_eq!(bundles.manifests(&digest).await.unwrap(), manifests);
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let content = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!content.windows(12).any(|part| part == b"aHVudGVyMg=="), "the secret is readable on disk");
    }
    assert_eq!(bundles.put(&manifests).unwrap().0, digest, "the same content has the same address");
}

#[test]
fn limits_name_the_manifest() {
    let folder = tempfile::tempdir().unwrap();
    let bundles = bundles(folder.path());
    let large = json!({"kind": "ConfigMap", "metadata": {"name": "big"}, "data": {"x": "y".repeat(20_000)}});
    let error = bundles.put(&[large]).unwrap_err().to_string();
    assert!(error.contains("ConfigMap big") && error.contains("limits.manifest_bytes"), "{error}");
    assert!(bundles.put(&vec![json!({}); 4]).unwrap_err().to_string().contains("limits.bundle_resources"));
}
