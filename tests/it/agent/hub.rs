//! A hub that only speaks the protocol: enrols, serves desired state from a map, and keeps every receipt.
//!
//! Uses the real transport and the hub's half of the session machine; decides nothing.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tokio::{sync::watch, task::JoinSet, time::timeout};
use windlass_protocol::{
    codec, handshake,
    ids::{Digest, Epoch, Generation, NamespacedName, Release},
    manifest::{self, ResourceKey},
    message::{
        AgentControl, Assignment, AssignmentPolicy, AssignmentReceipt, BlobReply, BlobRequest, BundleIndex, BundleRef,
        CHUNK_BYTES, Delta, Detail, EnrolReply, EnrolRequest, Enrolled, Receipt, ReceiptUpload, ResourceRef, Retry,
        StreamOpen, Tombstone,
    },
    session::{BLOB_BYTES_MAX, HubAction, HubSession},
};
use windlass_transport::{
    endpoint::{CloseCode, Connection, Listener, ListenerLimits, Peer, PeerAdmission, ServerTls},
    identity::{HubNames, Identity, IssuingAuthority, KeyMaterial, SubjectKey, TrustDomain, TrustDomainName, Validity},
    stream::{FrameReceiver, FrameSender},
};

/// How long a test waits for what an agent should tell.
const PATIENCE: Duration = Duration::from_secs(60);
/// The only join token.
pub(super) const TOKEN: &str = "join.me";

/// A running hub. Dropping it cuts every agent off.
pub(super) struct FakeHub {
    pub(super) address: SocketAddr,
    pub(super) pin: String,
    world: Arc<World>,
    _serving: JoinSet<()>,
}

/// What survives a restart of the hub.
pub(super) struct World {
    root: TrustDomain,
    issuer: IssuingAuthority,
    state: Mutex<State>,
    /// Raised with every change of the state.
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    generation: u64,
    assignments: BTreeMap<NamespacedName, (u64, Assignment)>,
    tombstones: Vec<(u64, Tombstone)>,
    blobs: BTreeMap<Digest, Vec<u8>>,
    /// Blobs sent to agents.
    served: usize,
    /// Redeemed tokens.
    enrolments: usize,
    /// Refused tokens.
    refusals: usize,
    /// What the agent last said it has.
    acknowledged: Generation,
    receipts: Vec<Receipt>,
    details: BTreeMap<Digest, Vec<u8>>,
    facts: Option<Value>,
}

impl World {
    pub(super) fn new() -> Result<Arc<Self>> {
        let name = TrustDomainName::new("test.windlass")?;
        let root = TrustDomain::create(&name, KeyMaterial::generate()?, 1, validity()?)?;
        let key = KeyMaterial::generate()?;
        let chain = root.sign_issuer(&key.public(), "n1", 2, validity()?)?;
        let issuer = IssuingAuthority::from_pem(&chain, key)?;
        Ok(Arc::new(Self { root, issuer, state: Mutex::default(), changed: watch::Sender::new(0) }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds the state")
    }

    fn raise(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Assigns manifests to the one cluster, as target and as released.
    pub(super) fn assign(&self, name: &str, manifests: &[Value], policy: AssignmentPolicy) -> BundleRef {
        let mut state = self.state();
        let bundle = put_bundle(&mut state, manifests);
        state.generation += 1;
        let application = NamespacedName::new("argocd", name);
        let release = state.assignments.get(&application).map_or(Release(1), |(_, before)| before.release.next());
        let assignment = Assignment {
            application: application.clone(),
            uid: format!("uid-{name}"),
            tracking_name: name.to_owned(),
            namespace: "default".to_owned(),
            target: Some(bundle.clone()),
            released: Some(bundle.clone()),
            last_good: None,
            release,
            policy,
            operation: None,
        };
        let generation = state.generation;
        state.assignments.insert(application, (generation, assignment));
        drop(state);
        self.raise();
        bundle
    }

    /// Changes an assignment.
    pub(super) fn change(&self, name: &str, change: impl FnOnce(&mut Assignment)) {
        let mut state = self.state();
        state.generation += 1;
        let generation = state.generation;
        if let Some((changed, assignment)) = state.assignments.get_mut(&NamespacedName::new("argocd", name)) {
            *changed = generation;
            change(assignment);
        }
        drop(state);
        self.raise();
    }

    /// Ends an assignment.
    pub(super) fn end(&self, name: &str, cascade: windlass_protocol::message::Cascade) {
        let mut state = self.state();
        state.generation += 1;
        let generation = state.generation;
        let application = NamespacedName::new("argocd", name);
        state.assignments.remove(&application);
        state.tombstones.push((generation, Tombstone { application, uid: format!("uid-{name}"), cascade }));
        drop(state);
        self.raise();
    }

    pub(super) fn served(&self) -> usize {
        self.state().served
    }

    pub(super) fn enrolments(&self) -> usize {
        self.state().enrolments
    }

    pub(super) fn generation(&self) -> u64 {
        self.state().generation
    }

    /// Waits until the agent has this generation on its disk.
    pub(super) async fn acknowledged(&self, generation: u64) -> Result<()> {
        self.wait("the acknowledgement", |state| (state.acknowledged.0 >= generation).then_some(())).await
    }

    /// Waits until a token was refused.
    pub(super) async fn refused(&self) -> Result<()> {
        self.wait("a refused token", |state| (state.refusals > 0).then_some(())).await
    }

    /// Waits until the newest receipt of an assignment satisfies a condition.
    pub(super) async fn receipt(
        &self,
        name: &str,
        what: &str,
        condition: impl Fn(&AssignmentReceipt) -> bool,
    ) -> Result<AssignmentReceipt> {
        self.wait(what, |state| {
            let newest = state.receipts.iter().rev().find_map(|receipt| match receipt {
                Receipt::V1(receipt) if receipt.application.name == name => Some(receipt),
                _ => None,
            });
            newest.filter(|receipt| condition(receipt)).cloned()
        })
        .await
    }

    /// Waits for the receipt that an assignment is gone.
    pub(super) async fn ended(&self, name: &str) -> Result<()> {
        self.wait("the end", |state| {
            let ended =
                |receipt: &Receipt| matches!(receipt, Receipt::Ended { application, .. } if application.name == name);
            state.receipts.iter().any(ended).then_some(())
        })
        .await
    }

    pub(super) async fn facts(&self) -> Result<Value> {
        self.wait("facts", |state| state.facts.clone()).await
    }

    /// Waits until the newest detail of an assignment says something; details come at most every ten seconds.
    pub(super) async fn told(&self, name: &str, text: &str) -> Result<()> {
        self.wait(text, |state| {
            let newest = state.receipts.iter().rev().find_map(|receipt| match receipt {
                Receipt::V1(receipt) if receipt.application.name == name => receipt.detail,
                _ => None,
            });
            let content = state.details.get(&newest?)?;
            String::from_utf8_lossy(content).contains(text).then_some(())
        })
        .await
    }

    /// The detail that a receipt names.
    pub(super) async fn detail(&self, receipt: &AssignmentReceipt) -> Result<Detail> {
        let digest = receipt.detail.context("the receipt names no detail")?;
        let content = self.wait("the detail", |state| state.details.get(&digest).cloned()).await?;
        Ok(serde_json::from_slice(&content)?)
    }

    async fn wait<T>(&self, what: &str, look: impl Fn(&State) -> Option<T>) -> Result<T> {
        let mut changed = self.changed.subscribe();
        let waiting = async {
            loop {
                if let Some(found) = look(&self.state()) {
                    return found;
                }
                if changed.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        match timeout(PATIENCE, waiting).await {
            Ok(found) => Ok(found),
            Err(_) => {
                let last: Vec<String> =
                    self.state().receipts.iter().rev().take(3).map(|receipt| format!("{receipt:?}")).collect();
                bail!("waited in vain for {what}; last receipts: {last:#?}")
            }
        }
    }
}

impl FakeHub {
    pub(super) fn start(world: &Arc<World>) -> Result<Self> {
        Self::start_at(world, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    pub(super) fn start_at(world: &Arc<World>, address: SocketAddr) -> Result<Self> {
        let key = KeyMaterial::generate()?;
        let names = HubNames::new(&["localhost"])?;
        let chain = world.issuer.issue_hub(&key.public(), "n1", &names, 10, validity()?)?;
        let tls = ServerTls::new(Identity::new(&chain, key)?, world.root.bundle()?, PeerAdmission::Enrolment)?;
        let mut listener = Listener::bind(address, &tls, ListenerLimits::default())?;
        let address = listener.local_address()?;
        let mut serving = JoinSet::new();
        let served = Arc::clone(world);
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Some(connection) = listener.accept().await {
                let world = Arc::clone(&served);
                connections.spawn(async move {
                    let result = match connection.peer() {
                        Peer::Unauthenticated => enrol(&world, &connection, address).await,
                        Peer::Authenticated(_) => session(&world, &connection).await,
                    };
                    if let Err(error) = result {
                        eprintln!("fake hub: {error:#}");
                    }
                    connection.close(CloseCode::DONE, "done");
                });
            }
        });
        Ok(Self { address, pin: world.root.pin().to_string(), world: Arc::clone(world), _serving: serving })
    }

    pub(super) fn world(&self) -> &World {
        &self.world
    }
}

async fn enrol(world: &World, connection: &Connection, address: SocketAddr) -> Result<()> {
    let (mut send, mut receive) = connection.accept_bi().await?;
    anyhow::ensure!(receive.recv::<StreamOpen>().await? == Some(StreamOpen::Enrol), "not an enrolment");
    let request = receive.recv::<EnrolRequest>().await?.context("no request")?;
    let EnrolRequest::V1 { token, signing_request, .. } = request else { anyhow::bail!("not an enrolment") };
    let reply = if token == TOKEN {
        let key = SubjectKey::from_signing_request(&signing_request)?;
        world.state().enrolments += 1;
        EnrolReply::Accepted(Enrolled {
            cluster: "east".to_owned(),
            cluster_uid: "uid-east".to_owned(),
            chain: world.issuer.issue_agent(&key, "east", "uid-east", 77, validity()?)?,
            roots: world.root.certificate_pem().to_owned(),
            hubs: vec![address.to_string()],
        })
    } else {
        world.state().refusals += 1;
        world.raise();
        EnrolReply::Refused { reason: "the join token is not valid".to_owned(), retry: Retry::Never }
    };
    send.send(&reply).await?;
    send.finish().await?;
    send.delivered().await?;
    Ok(())
}

async fn accept(connection: &Connection, kind: StreamOpen) -> Result<(FrameSender, FrameReceiver)> {
    let (send, mut receive) = connection.accept_bi().await?;
    let opened = receive.recv::<StreamOpen>().await?;
    anyhow::ensure!(opened == Some(kind), "{opened:?} instead of {kind:?}");
    Ok((send, receive))
}

async fn session(world: &World, connection: &Connection) -> Result<()> {
    let (mut control, mut from_control) = accept(connection, StreamOpen::Control).await?;
    let (mut blobs, mut from_blobs) = accept(connection, StreamOpen::Blobs).await?;
    let (mut receipts, mut from_receipts) = accept(connection, StreamOpen::Receipts).await?;
    let mut changed = world.changed.subscribe();
    let generation = Generation(world.state().generation);
    let mut machine = HubSession::new(handshake::hello("fake hub"), 1, Epoch(1), generation);
    loop {
        while let Some(action) = machine.poll() {
            match action {
                HubAction::Control(message) => control.send(&message).await?,
                HubAction::ReceiptReply(reply) => receipts.send(&reply).await?,
                HubAction::Admit { .. } => machine.handle_admitted(),
                HubAction::Acknowledged { generation, .. } => {
                    world.state().acknowledged = generation;
                    world.raise();
                }
                HubAction::Delta { generation, .. } => {
                    let delta = delta(&world.state(), generation);
                    machine.handle_delta(vec![delta]);
                }
                HubAction::Serve(digests) => {
                    for digest in digests {
                        let content = world.state().blobs.get(&digest).cloned();
                        serve(&mut blobs, digest, content).await?;
                        world.state().served += 1;
                    }
                }
                HubAction::Commit(new) => {
                    let last = new.last().map(|(seq, _)| *seq);
                    world.state().receipts.extend(new.into_iter().map(|(_, receipt)| receipt));
                    world.raise();
                    if let Some(last) = last {
                        machine.handle_committed(last);
                    }
                }
                HubAction::StoreDetail { digest, content } => {
                    world.state().details.insert(digest, content);
                    world.raise();
                }
                HubAction::Facts(facts) => {
                    world.state().facts = Some(facts.0);
                    world.raise();
                }
                HubAction::Renew(_) => {}
            }
        }
        tokio::select! {
            frame = from_control.recv::<AgentControl>() => match frame? {
                Some(frame) => machine.handle_control(frame)?,
                None => return Ok(()),
            },
            frame = from_blobs.recv::<BlobRequest>() => match frame? {
                Some(frame) => machine.handle_blob_request(frame)?,
                None => return Ok(()),
            },
            frame = from_receipts.recv::<ReceiptUpload>() => match frame? {
                Some(frame) => machine.handle_receipts(frame)?,
                None => return Ok(()),
            },
            _ = changed.changed() => {
                let generation = Generation(world.state().generation);
                machine.handle_changed(Epoch(1), generation);
            }
        }
    }
}

async fn serve(blobs: &mut FrameSender, digest: Digest, content: Option<Vec<u8>>) -> Result<()> {
    let Some(content) = content else {
        blobs.send(&BlobReply::Unavailable { digest }).await?;
        return Ok(());
    };
    let total = u64::try_from(content.len())?;
    let mut offset = 0;
    for chunk in content.chunks(CHUNK_BYTES) {
        blobs.send(&BlobReply::Chunk { digest, offset, total, content: chunk.to_vec() }).await?;
        offset += u64::try_from(chunk.len())?;
    }
    Ok(())
}

fn delta(state: &State, have: Generation) -> Delta {
    let newer = |generation: &u64| *generation > have.0;
    Delta {
        epoch: Epoch(1),
        from: have,
        to: Generation(state.generation),
        assignments: state.assignments.values().filter(|entry| newer(&entry.0)).map(|entry| entry.1.clone()).collect(),
        tombstones: state.tombstones.iter().filter(|entry| newer(&entry.0)).map(|entry| entry.1.clone()).collect(),
        known: (have == Generation::ZERO).then(|| state.assignments.keys().cloned().collect()),
        complete: true,
    }
}

fn put_bundle(state: &mut State, manifests: &[Value]) -> BundleRef {
    let mut resources = Vec::new();
    for object in manifests {
        let content = manifest::canonical(object);
        let digest = Digest::of(&content);
        let size = u32::try_from(content.len()).expect("manifests of tests are small");
        resources.push(ResourceRef { key: ResourceKey::of(object), digest, size, sealed: false });
        state.blobs.insert(digest, content);
    }
    let index = codec::to_bytes(&BundleIndex::V1 { resources }, BLOB_BYTES_MAX).expect("indexes of tests are small");
    let digest = Digest::of(&index);
    state.blobs.insert(digest, index);
    BundleRef { digest, revision: digest.short() }
}

fn validity() -> Result<Validity> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    Ok(Validity::new(now - 3600, now + 86_400)?)
}
