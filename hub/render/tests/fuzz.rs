//! No text makes the renderer panic: kustomizations, patches and manifests are bent at random.

use proptest::prelude::*;
use windlass_protocol::resource::ApplicationSource;
use windlass_render::{BuildEnvironment, KustomizeFlags, Limits, MemoryTree, Request, kustomize_build, render};

const KUSTOMIZATION: &str = "\
namespace: blue
namePrefix: a-
nameSuffix: -z
resources: [r.yaml]
commonLabels: {x: v}
labels:
- pairs: {l: m}
  includeTemplates: true
commonAnnotations: {team: o}
images:
- name: nginx
  newTag: '2'
replicas:
- {name: web, count: 2}
configMapGenerator:
- name: conf
  literals: [A=1]
patches:
- path: p.yaml
- patch: '[{\"op\": \"replace\", \"path\": \"/spec/replicas\", \"value\": 7}]'
  target: {kind: Deployment}
replacements:
- source: {kind: Deployment, fieldPath: spec.replicas}
  targets:
  - select: {kind: ConfigMap}
    fieldPaths: [data.k, metadata.annotations.k]
    options: {create: true}
vars:
- name: V
  objref: {kind: Deployment, apiVersion: apps/v1, name: web}
";

const RESOURCES: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  annotations: {v: $(V)}
spec:
  replicas: 1
  template:
    spec:
      containers:
      - name: c
        image: nginx:1
        ports: [{containerPort: 80}, {containerPort: 81, protocol: UDP}]
        envFrom: [{configMapRef: {name: conf}}]
---
apiVersion: v1
kind: Service
metadata: {name: s}
spec: {ports: [{port: 80}]}
";

const PATCH: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  template:
    spec:
      containers:
      - name: c
        ports: [{containerPort: 80, protocol: TCP}]
      - {name: d, $patch: delete}
      - $patch: merge
";

/// Replaces a stretch of a text; offsets are taken modulo its length.
fn bend(text: &str, at: usize, length: usize, insert: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let start = at % characters.len().max(1);
    let before = characters.iter().take(start);
    before.copied().chain(insert.chars()).chain(characters.iter().skip(start + length).copied()).collect()
}

fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        "[-:?&*!|>{}\\[\\],#'\"%@ \n~<$.()/=0-9a-z]{0,12}",
        "\\PC{0,6}",
        Just("null".to_owned()),
        Just("[]".to_owned()),
        Just("{}".to_owned()),
        Just("\n- ".to_owned()),
        Just("$patch: replace".to_owned()),
        Just("18446744073709551616".to_owned()),
    ]
}

fn build(kustomization: &str, resources: &str, patch: &str) {
    let tree = MemoryTree::new([("kustomization.yaml", kustomization), ("r.yaml", resources), ("p.yaml", patch)]);
    if let Ok(built) = kustomize_build(&tree, ".", &KustomizeFlags::default(), &Limits::default()) {
        let _ = built.to_yaml();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn bent_kustomizations_do_not_panic(at in 0_usize..2000, length in 0_usize..20, insert in piece()) {
        build(&bend(KUSTOMIZATION, at, length, &insert), RESOURCES, PATCH);
    }

    #[test]
    fn bent_resources_and_patches_do_not_panic(
        bends in prop::collection::vec((0_usize..1000, 0_usize..20, piece(), any::<bool>()), 1..4),
    ) {
        let (mut resources, mut patch) = (RESOURCES.to_owned(), PATCH.to_owned());
        for (at, length, insert, in_patch) in bends {
            let text = if in_patch { &mut patch } else { &mut resources };
            *text = bend(text, at, length, &insert);
        }
        build(KUSTOMIZATION, &resources, &patch);
    }

    #[test]
    fn bytes_in_a_directory_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0_usize..1000, insert in piece()) {
        let bent = bend(RESOURCES, at, 3, &insert);
        let tree = MemoryTree::new([("a.yaml", bytes.clone()), ("b.yaml", bent.into_bytes()), ("c.json", bytes)]);
        let (source, environment, limits) =
            (ApplicationSource::default(), BuildEnvironment::default(), Limits::default());
        let _ = render(&Request { tree: &tree, source: &source, environment: &environment, limits: &limits });
    }
}

#[test]
fn the_unbent_texts_build() {
    let tree = MemoryTree::new([("kustomization.yaml", KUSTOMIZATION), ("r.yaml", RESOURCES), ("p.yaml", PATCH)]);
    let built = kustomize_build(&tree, ".", &KustomizeFlags::default(), &Limits::default());
    assert_eq!(built.map(|built| built.manifests.len()), Ok(3));
}
