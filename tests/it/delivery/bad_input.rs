//! Input that cannot work: each Application says what is wrong with it, by name, file and line, and a good one beside them
//! does not notice.

use std::{fs, os::unix::fs::symlink};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use windlass_tests::GitRepo;

use crate::fleet::{Fleet, automated, same};

/// What is wrong, and what the condition must say.
struct Case {
    name: &'static str,
    /// Merged into `spec`.
    spec: Value,
    condition: &'static str,
    words: &'static [&'static str],
}

const CONFIG_MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\n";

pub(super) async fn check(fleet: &Fleet) -> Result<()> {
    let repository = fleet.repository("bad")?;
    fill(&repository)?;
    let commit = repository.commit_and_push("everything at once")?;
    fleet.hub.apply(&project()).await?;
    let cases = cases(fleet);
    for case in &cases {
        let mut application = fleet.application(case.name, &repository, "good", automated(true, true))?;
        merge(&mut application["spec"], &case.spec);
        fleet.hub.apply(&application).await?;
    }
    fleet.hub.apply(&fleet.application("good", &repository, "good", automated(true, true))?).await?;
    fleet.hub.settled("good", &commit).await?;
    link_is_ignored(fleet, &repository, &commit).await?;

    let mut wrong = Vec::new();
    for case in &cases {
        let reported = fleet.hub.until(case.name, |application| says(application, case));
        if let Err(error) = reported.await {
            wrong.push(format!("{error:#}"));
        }
        if fleet.first()?.look.find("namespaces", "", case.name).await?.is_some() {
            wrong.push(format!("{}: something was applied", case.name));
        }
    }
    ensure!(wrong.is_empty(), "{} wrong reports:\n{}", wrong.len(), wrong.join("\n"));
    refused_at_once(fleet, &repository).await?;

    // The good one still follows its branch.
    repository.write("good/settings.yaml", &format!("{CONFIG_MAP}data: {{color: green}}\n"))?;
    let commit = repository.commit_and_push("change")?;
    fleet.hub.settled("good", &commit).await?;
    same(&fleet.first()?.look.get("configmaps", "good", "settings").await?, "/data/color", "green")
}

/// In a plain directory a link is left out with a warning, and the rest is applied.
async fn link_is_ignored(fleet: &Fleet, repository: &GitRepo, commit: &str) -> Result<()> {
    fleet.hub.apply(&fleet.application("link", repository, "link", automated(true, true))?).await?;
    let application = fleet.hub.settled("link", commit).await?;
    let conditions = application["status"]["conditions"].to_string();
    ensure!(conditions.contains("link/outside.yaml: symbolic links are not followed"), "{conditions}");
    Ok(())
}

fn cases(fleet: &Fleet) -> Vec<Case> {
    let source = |source: Value| json!({"source": source});
    let comparison = "ComparisonError";
    let invalid = "InvalidSpecError";
    let absent = fleet.git.repository_url("absent");
    vec![
        Case {
            name: "no-repository",
            spec: source(json!({"repoURL": absent})),
            condition: comparison,
            words: &["absent"],
        },
        Case {
            name: "no-ref",
            spec: source(json!({"targetRevision": "nowhere"})),
            condition: comparison,
            words: &["nowhere"],
        },
        Case { name: "no-path", spec: source(json!({"path": "nowhere"})), condition: comparison, words: &["nowhere"] },
        Case {
            name: "escape",
            spec: source(json!({"path": "../../etc"})),
            condition: comparison,
            words: &["../../etc"],
        },
        Case {
            name: "outside",
            spec: source(json!({"path": "outside"})),
            condition: comparison,
            words: &["outside/kustomization.yaml", "../../../etc/hostname"],
        },
        Case {
            name: "linked",
            spec: source(json!({"path": "linked"})),
            condition: comparison,
            words: &["linked", "hostname.yaml"],
        },
        Case { name: "cycle", spec: source(json!({"path": "cycle/a"})), condition: comparison, words: &["cycle"] },
        Case {
            name: "large",
            spec: source(json!({"path": "large"})),
            condition: comparison,
            words: &["large/large.yaml"],
        },
        Case {
            name: "no-kind",
            spec: source(json!({"path": "no-kind"})),
            condition: comparison,
            words: &["no-kind.yaml"],
        },
        Case {
            name: "doubled",
            spec: source(json!({"path": "doubled"})),
            condition: comparison,
            words: &["doubled/doubled.yaml:5", "color"],
        },
        Case {
            name: "no-cluster",
            spec: json!({"destination": {"name": "atlantis"}}),
            condition: invalid,
            words: &["there are no clusters with this name: atlantis"],
        },
        Case {
            name: "denied",
            spec: json!({"project": "narrow"}),
            condition: invalid,
            words: &["do not match any of the allowed destinations in project 'narrow'"],
        },
        Case { name: "no-project", spec: json!({"project": "unheard-of"}), condition: invalid, words: &["unheard-of"] },
    ]
}

fn fill(repository: &GitRepo) -> Result<()> {
    repository.write("good/settings.yaml", &format!("{CONFIG_MAP}data: {{color: blue}}\n"))?;
    repository.write("outside/kustomization.yaml", "resources: [../../../etc/hostname]\n")?;
    repository.write("linked/kustomization.yaml", "resources: [hostname.yaml]\n")?;
    symlink("/etc/hostname", repository.path().join("linked/hostname.yaml")).context("make a link")?;
    repository.write("link/settings.yaml", CONFIG_MAP)?;
    symlink("/etc/hostname", repository.path().join("link/outside.yaml")).context("make a link")?;
    repository.write("cycle/a/kustomization.yaml", "resources: [../b]\n")?;
    repository.write("cycle/b/kustomization.yaml", "resources: [../a]\n")?;
    repository.write("large/settings.yaml", CONFIG_MAP)?;
    repository.write("no-kind/no-kind.yaml", "apiVersion: v1\nmetadata: {name: settings}\n")?;
    let doubled = format!("{CONFIG_MAP}data: {{color: blue,\n  color: red}}\n");
    repository.write("doubled/doubled.yaml", &doubled)?;
    // A hole: 100 MiB that compress well.
    let large = fs::File::create(repository.path().join("large/large.yaml")).context("make the large file")?;
    large.set_len(100 << 20).context("make the large file large")
}

fn project() -> Value {
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "AppProject", "metadata": {"name": "narrow", "namespace": "argocd"},
        "spec": {"sourceRepos": ["*"], "destinations": [{"name": "elsewhere", "namespace": "*"}]},
    })
}

fn says(application: &Value, case: &Case) -> Result<()> {
    let conditions = application.pointer("/status/conditions").and_then(Value::as_array).context("no condition")?;
    let condition = conditions.iter().find(|condition| condition["type"] == case.condition);
    let condition = condition.with_context(|| format!("no {}", case.condition))?;
    let message = condition["message"].as_str().unwrap_or_default();
    for word in case.words {
        ensure!(message.contains(word), "{message:?} does not name {word:?}");
    }
    Ok(())
}

/// What the hub's API refuses before it becomes an object.
async fn refused_at_once(fleet: &Fleet, repository: &GitRepo) -> Result<()> {
    let mut wrong_type = fleet.application("wrong-type", repository, "good", json!({}))?;
    wrong_type["spec"]["source"]["path"] = json!(["a", "b"]);
    let mut unknown = fleet.application("unknown-field", repository, "good", json!({}))?;
    unknown["spec"]["sauce"] = json!({});
    for (object, words) in [(wrong_type, "spec.source.path"), (unknown, "sauce")] {
        let Err(error) = fleet.hub.apply(&object).await else {
            anyhow::bail!("taken: {object}");
        };
        let error = format!("{error:#}");
        ensure!(error.contains(words), "{error} does not name {words}");
    }
    Ok(())
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}
