//! People: they make, change, sync and delete Applications and sets, add and remove clusters, and push commits. Their writes go
//! through the API of any hub, bound to what they saw there, as patches are.

use serde_json::{Value, json};
use windlass_hub_core::{
    Command, ObjectKey, ObjectRecord, Precondition,
    command::{Part, Write},
};
use windlass_protocol::{
    ids::{Digest, uuid_v4},
    json,
    resource::{Kind, RESOURCES_FINALIZER},
    time::Millis,
};

use super::{World, event::Event, hub::Waiter};

const SUBJECT: &str = "user:admin";
const NAMESPACE: &str = "argocd";

impl World {
    /// One action of people, and the next one later.
    pub(crate) fn client(&mut self) {
        let mean = self.time.profile.client_pause;
        let pause = self.time.around(mean);
        if !self.time.faults {
            return;
        }
        self.time.after(pause, Event::Client);
        let Some(hub) = self.any_hub() else { return };
        match self.time.random.below(20) {
            0..=2 => self.create_application(hub),
            3..=4 => self.change_policy(hub),
            5 => self.move_application(hub),
            6 => self.delete_application(hub),
            7..=10 => self.sync_application(hub),
            11..=12 => self.change_set(hub),
            13 => self.change_clusters(hub),
            _ => {
                let what = self.git.change(&mut self.time.random);
                self.coverage.commits += 1;
                self.time.note(format_args!("commit {} {what}", self.git.head()));
            }
        }
    }

    /// Any hub that is up.
    pub(crate) fn any_hub(&mut self) -> Option<u64> {
        let up: Vec<u64> = self.hubs.iter().filter(|(_, node)| node.up).map(|(id, _)| *id).collect();
        self.time.random.pick(&up).copied()
    }

    /// A write by people.
    pub(crate) fn write(&mut self, hub: u64, write: Write, preconditions: Vec<Precondition>) {
        let (Write::Create { key, .. } | Write::Replace { key, .. } | Write::Delete { key }) = &write;
        self.time.note(format_args!("client at hub {hub} writes {key}"));
        self.propose(hub, (SUBJECT, Command::Write { writes: vec![write] }), preconditions, Waiter::Client);
    }

    fn create(&mut self, hub: u64, key: ObjectKey, body: &Value) {
        let uid = uuid_v4(self.time.random.bytes16());
        self.write(hub, Write::Create { key, uid, body: body.to_string(), sealed: None }, Vec::new());
    }

    fn replace(&mut self, hub: u64, key: ObjectKey, record: &ObjectRecord, body: &Value) {
        let (uid, revision) = (record.uid.clone(), Some(record.revision));
        let precondition = Precondition::Object { key: key.clone(), uid, revision };
        self.write(
            hub,
            Write::Replace { key, part: Part::Main, body: body.to_string(), sealed: None },
            vec![precondition],
        );
    }

    /// Some object of a kind as a hub has it; Applications of sets belong to their sets.
    fn some(&mut self, hub: u64, kind: Kind) -> Option<(ObjectKey, std::sync::Arc<ObjectRecord>)> {
        let state = &self.hubs.get(&hub)?.state;
        let found = state.objects(kind, None).filter(|(_, record)| record.owners.is_empty() && !record.deleting);
        let found: Vec<_> = found.map(|(key, record)| (key.clone(), std::sync::Arc::clone(record))).collect();
        self.time.random.pick(&found).cloned()
    }

    fn some_cluster(&mut self) -> String {
        let names: Vec<String> = self.agents.keys().cloned().collect();
        self.time.random.pick(&names).cloned().unwrap_or_default()
    }

    fn create_application(&mut self, hub: u64) {
        let name = format!("a{}", self.time.random.below(self.time.profile.applications.max(1)));
        let path = format!("apps/{name}");
        self.git.ensure(&path);
        let cluster = self.some_cluster();
        let policy = self.some_policy();
        let finalizers = match self.time.random.below(3) {
            0 => json!([]),
            1 => json!([RESOURCES_FINALIZER]),
            _ => json!([format!("{RESOURCES_FINALIZER}/foreground")]),
        };
        let body = json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Application",
            "metadata": {"name": name, "namespace": NAMESPACE, "finalizers": finalizers},
            "spec": spec(&path, &cluster, &name, &policy),
        });
        self.create(hub, ObjectKey::new(Kind::Application, NAMESPACE, name), &body);
    }

    /// `syncPolicy`: manual, or automated with any rules.
    fn some_policy(&mut self) -> Value {
        if self.time.random.chance(350) {
            return json!({});
        }
        let (prune, heal) = (self.time.random.chance(600), self.time.random.chance(600));
        json!({"automated": {"prune": prune, "selfHeal": heal}})
    }

    fn change_policy(&mut self, hub: u64) {
        let policy = self.some_policy();
        let Some((key, record)) = self.some(hub, Kind::Application) else { return };
        let mut value = record.value();
        json::set(&mut value, &["spec", "syncPolicy"], policy);
        self.coverage.policies += 1;
        self.replace(hub, key, &record, &value);
    }

    fn move_application(&mut self, hub: u64) {
        let cluster = self.some_cluster();
        let Some((key, record)) = self.some(hub, Kind::Application) else { return };
        let mut value = record.value();
        json::set(&mut value, &["spec", "destination", "name"], json!(cluster));
        self.coverage.moves += 1;
        self.replace(hub, key, &record, &value);
    }

    fn delete_application(&mut self, hub: u64) {
        let Some((key, record)) = self.some(hub, Kind::Application) else { return };
        self.coverage.deletes += 1;
        let precondition = Precondition::Object { key: key.clone(), uid: record.uid.clone(), revision: None };
        self.write(hub, Write::Delete { key }, vec![precondition]);
    }

    fn sync_application(&mut self, hub: u64) {
        let prune = self.time.random.chance(500);
        let Some((key, record)) = self.some(hub, Kind::Application) else { return };
        let mut value = record.value();
        let operation = json!({"initiatedBy": {"username": "admin"}, "sync": {"prune": prune}});
        json::set(&mut value, &["operation"], operation);
        self.coverage.operations_asked += 1;
        self.replace(hub, key, &record, &value);
    }

    /// Makes, changes or deletes the one set.
    fn change_set(&mut self, hub: u64) {
        let key = ObjectKey::new(Kind::ApplicationSet, NAMESPACE, "fleet");
        let known = self.hubs.get(&hub).and_then(|node| node.state.object(&key).cloned());
        if let Some(record) = known.as_ref().filter(|_| self.time.random.chance(100)) {
            let precondition = Precondition::Object { key: key.clone(), uid: record.uid.clone(), revision: None };
            self.coverage.deletes += 1;
            self.write(hub, Write::Delete { key }, vec![precondition]);
            return;
        }
        let mut elements = Vec::new();
        let clusters: Vec<String> = self.agents.keys().cloned().collect();
        for cluster in clusters {
            if self.time.random.chance(700) {
                self.git.ensure(&format!("sets/fleet-{cluster}"));
                elements.push(json!({"cluster": cluster}));
            }
        }
        let template = json!({
            "metadata": {"name": "fleet-{{cluster}}"},
            "spec": spec("sets/fleet-{{cluster}}", "{{cluster}}", "fleet", &json!({"automated": {"prune": true, "selfHeal": true}})),
        });
        let body = json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "ApplicationSet",
            "metadata": {"name": "fleet", "namespace": NAMESPACE},
            "spec": {"generators": [{"list": {"elements": elements}}], "template": template},
        });
        self.coverage.sets += 1;
        match known {
            None => self.create(hub, key, &body),
            Some(record) => {
                let mut value = record.value();
                json::set(&mut value, &["spec"], body.get("spec").cloned().unwrap_or_default());
                self.replace(hub, key, &record, &value);
            }
        }
    }

    /// Registers a cluster that is not, rarely removes one.
    fn change_clusters(&mut self, hub: u64) {
        let name = self.some_cluster();
        let key = ObjectKey::new(Kind::Cluster, "", name.as_str());
        let known = self.hubs.get(&hub).and_then(|node| node.state.object(&key).cloned());
        match known {
            None => self.add_cluster(hub, &name),
            Some(record) if self.time.random.chance(150) => {
                self.coverage.clusters_removed += 1;
                self.forgetful.insert(name);
                let precondition = Precondition::Object { key: key.clone(), uid: record.uid.clone(), revision: None };
                self.write(hub, Write::Delete { key }, vec![precondition]);
            }
            Some(_) => {}
        }
    }

    pub(crate) fn add_cluster(&mut self, hub: u64, name: &str) {
        let key = ObjectKey::new(Kind::Cluster, "", name);
        let body =
            json!({"apiVersion": "windlass.io/v1alpha1", "kind": "Cluster", "metadata": {"name": name}, "spec": {}});
        self.create(hub, key, &body);
    }

    /// Gives tokens to agents whose cluster is registered and whom it does not know.
    pub(crate) fn invite(&mut self) {
        let Some(hub) = self.any_hub() else { return };
        let names: Vec<String> = self.agents.keys().cloned().collect();
        for name in names {
            let Some(node) = self.hubs.get(&hub) else { return };
            let wall = node.wall(self.time.now);
            let Some(uid) = node.state.cluster_named(&name).map(|(uid, _)| uid.to_owned()) else { continue };
            let Some(agent) = self.agents.get_mut(&name) else { continue };
            if agent.cluster_uid() == Some(uid.as_str()) || agent.token.is_some() {
                continue;
            }
            let hash = Digest(blow_up(self.time.random.bytes16()));
            agent.token = Some(hash);
            let command =
                Command::AddToken { hash, cluster: name.clone(), expires_at: wall.plus(Millis::from_secs(3_600)) };
            self.propose(hub, (SUBJECT, command), Vec::new(), Waiter::Client);
            self.time.after(Millis(200), Event::Enrol(name));
        }
    }
}

fn blow_up(bytes: [u8; 16]) -> [u8; 32] {
    Digest::of(&bytes).0
}

fn spec(path: &str, cluster: &str, namespace: &str, policy: &Value) -> Value {
    json!({
        "project": "default",
        "source": {"repoURL": "https://git.sim/fleet", "path": path, "targetRevision": "HEAD"},
        "destination": {"name": cluster, "namespace": format!("ns-{namespace}")},
        "syncPolicy": policy,
    })
}
