//! What a restart finds.

use windlass_protocol::{
    ids::Release,
    manifest::ResourceKey,
    message::{AssignmentPolicy, BundleRef, Cascade, ResourceRef},
};

use super::*;
use crate::limits::Limits;

fn assignment(name: &str, bundle: Digest) -> Assignment {
    let bundle = BundleRef { digest: bundle, revision: "abc".into() };
    Assignment {
        application: NamespacedName::new("argocd", name),
        uid: format!("uid-{name}"),
        tracking_name: name.into(),
        namespace: "shop".into(),
        target: Some(bundle.clone()),
        released: Some(bundle),
        last_good: None,
        release: Release(1),
        policy: AssignmentPolicy::default(),
        operation: None,
    }
}

fn change(generation: u64, assignments: Vec<Assignment>) -> DesiredChange {
    DesiredChange {
        epoch: Epoch(1),
        to: Generation(generation),
        assignments: assignments.into_iter().map(|assignment| (assignment.application.clone(), assignment)).collect(),
        ..DesiredChange::default()
    }
}

/// Puts a bundle of one ConfigMap; gives its address.
fn put_bundle(checkpoint: &Checkpoint, name: &str) -> Digest {
    let manifest = serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    let content = windlass_protocol::manifest::canonical(&manifest);
    let resource = ResourceRef {
        key: ResourceKey::of(&manifest),
        digest: Digest::of(&content),
        size: u32::try_from(content.len()).unwrap(),
        sealed: false,
    };
    let index = codec::to_bytes(&BundleIndex::V1 { resources: vec![resource.clone()] }, BLOB_BYTES_MAX).unwrap();
    checkpoint.put_blob(resource.digest, &content).unwrap();
    checkpoint.put_blob(Digest::of(&index), &index).unwrap();
    Digest::of(&index)
}

#[test]
fn an_accepted_change_survives() {
    let folder = tempfile::tempdir().unwrap();
    let bundle;
    {
        let checkpoint = Checkpoint::open(folder.path(), 1 << 20).unwrap();
        bundle = put_bundle(&checkpoint, "a");
        checkpoint.accept(&change(3, vec![assignment("a", bundle)])).unwrap();
        let point = ResumePoint { uid: "uid-a".into(), sequence: 7, ..ResumePoint::default() };
        checkpoint.save_resume(&NamespacedName::new("argocd", "a"), &point).unwrap();
    }
    let checkpoint = Checkpoint::open(folder.path(), 1 << 20).unwrap();
    let restored = checkpoint.restore().unwrap();
    assert_eq!(restored.position, Position { epoch: Epoch(1), generation: Generation(3) });
    assert_eq!(restored.assignments.len(), 1);
    let key = (NamespacedName::new("argocd", "a"), "uid-a".to_owned());
    assert_eq!(restored.resume.get(&key).map(|point| point.sequence), Some(7));
    let manifests = checkpoint.bundle(bundle, &Limits::default()).unwrap();
    assert_eq!(manifests.first().map(windlass_protocol::manifest::name), Some("a"));
}

#[test]
fn garbage_goes_and_references_stay() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint::open(folder.path(), 1 << 20).unwrap();
    let kept = put_bundle(&checkpoint, "kept");
    let lost = put_bundle(&checkpoint, "lost");
    checkpoint.accept(&change(1, vec![assignment("a", kept)])).unwrap();
    let coming = put_bundle(&checkpoint, "coming");
    assert_eq!(checkpoint.collect_garbage().unwrap(), 2);
    assert_eq!(checkpoint.missing(&[kept, lost, coming]), [lost]);
    assert!(checkpoint.bundle(kept, &Limits::default()).is_ok());
    assert!(matches!(checkpoint.bundle(lost, &Limits::default()), Err(BundleError::Missing(_))));
}

#[test]
fn damaged_content_is_missing_and_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint::open(folder.path(), 1 << 20).unwrap();
    let bundle = put_bundle(&checkpoint, "a");
    checkpoint.accept(&change(1, vec![assignment("a", bundle)])).unwrap();
    let path = folder.path().join("blobs").join(bundle.to_string());
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(checkpoint.blob(bundle).unwrap(), None);
    assert_eq!(checkpoint.missing(&[bundle]), [bundle]);
}

#[test]
fn tombstones_stay_until_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint::open(folder.path(), 1 << 20).unwrap();
    let application = NamespacedName::new("argocd", "a");
    checkpoint.accept(&change(1, vec![assignment("a", Digest::of(b"x"))])).unwrap();
    let tombstone = Tombstone { application: application.clone(), uid: "uid-a".into(), cascade: Cascade::Background };
    let ended = DesiredChange { tombstones: vec![tombstone], ..change(2, vec![]) };
    checkpoint.accept(&ended).unwrap();
    checkpoint.forget_assignment(&application, "uid-a").unwrap();
    let restored = checkpoint.restore().unwrap();
    assert_eq!((restored.assignments.len(), restored.tombstones.len()), (0, 1));
    checkpoint.forget_tombstone(&application, "uid-a").unwrap();
    assert!(checkpoint.restore().unwrap().tombstones.is_empty());
}

#[test]
fn limits_of_bundles_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint::open(folder.path(), 1 << 20).unwrap();
    let bundle = put_bundle(&checkpoint, "a-long-name");
    let limits = Limits { manifest_bytes: 8, ..Limits::default() };
    let error = checkpoint.bundle(bundle, &limits).unwrap_err();
    assert!(error.to_string().contains("manifest_bytes"), "{error}");
}

#[test]
fn what_a_whole_change_does_not_know_is_orphaned_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint::open(folder.path(), 1 << 20).unwrap();
    let (a, b) = (assignment("a", Digest::of(b"x")), assignment("b", Digest::of(b"x")));
    checkpoint.accept(&change(1, vec![a.clone(), b])).unwrap();
    let whole = DesiredChange { known: Some(BTreeSet::from([a.application.clone()])), ..change(2, vec![a]) };
    let orphaned = checkpoint.accept(&whole).unwrap();
    assert_eq!(orphaned, BTreeSet::from([NamespacedName::new("argocd", "b")]));
    let restored = checkpoint.restore().unwrap();
    let flags: Vec<bool> = restored.assignments.iter().map(|record| record.orphaned).collect();
    assert_eq!(flags, [false, true]);
}

#[test]
fn a_change_without_its_content_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint::open(folder.path(), 1 << 20).unwrap();
    let digest = Digest::of(b"absent");
    let lacking = DesiredChange { content: BTreeSet::from([digest]), ..change(1, vec![assignment("a", digest)]) };
    assert!(checkpoint.accept(&lacking).is_err());
    assert!(checkpoint.restore().unwrap().assignments.is_empty());
}
