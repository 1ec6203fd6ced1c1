//! A trust domain, peers on free ports, and a service that a test steers.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::io::AsyncRead;
use tokio::sync::watch;
use windlass_transport::identity::{
    HubNames, Identity as Certificate, IssuingAuthority, KeyMaterial, TrustBundle, TrustDomain, TrustDomainName,
    Validity,
};

use crate::peers::{CallKind, Expected, PeerService, PeerTls, Peers, PeersConfig};
use crate::raft::NodeId;
use crate::store::{Identity, StoreId};

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const CLUSTER: StoreId = StoreId::from_bytes([7; 16]);

pub(crate) fn loopback() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// The store of a node that was never wiped.
pub(crate) fn store_of(node: NodeId) -> StoreId {
    StoreId::from_bytes(u128::from(node).to_be_bytes())
}

pub(crate) fn identity(node: NodeId) -> Identity {
    Identity { cluster: CLUSTER, node, store: store_of(node) }
}

/// A bound on tests that would otherwise hang when they fail.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("done within the test's patience")
}

/// Waits for a condition by looking again; there is no event for it.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !condition().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{what}"));
}

/// A root with one issuer, and where its hubs listen.
pub(crate) struct World {
    pub(crate) root: TrustDomain,
    issuer: IssuingAuthority,
    pub(crate) addresses: Arc<Mutex<BTreeMap<NodeId, String>>>,
    /// What differs from [`store_of`].
    pub(crate) expected: Arc<Mutex<BTreeMap<NodeId, Expected>>>,
}

impl World {
    pub(crate) fn new() -> Self {
        let name = TrustDomainName::new("fleet.example").unwrap();
        let root = TrustDomain::create(&name, KeyMaterial::generate().unwrap(), 1, year()).unwrap();
        let key = KeyMaterial::generate().unwrap();
        let chain = root.sign_issuer(&key.public(), "1", 2, year()).unwrap();
        let issuer = IssuingAuthority::from_pem(&chain, key).unwrap();
        Self { root, issuer, addresses: Arc::default(), expected: Arc::default() }
    }

    pub(crate) fn bundle(&self) -> TrustBundle {
        self.root.bundle().unwrap()
    }

    pub(crate) fn hub(&self, node: NodeId) -> Certificate {
        let key = KeyMaterial::generate().unwrap();
        let names = HubNames::default();
        let chain = self.issuer.issue_hub(&key.public(), &node.to_string(), &names, 10, year()).unwrap();
        Certificate::new(&chain, key).unwrap()
    }

    pub(crate) fn agent(&self) -> Certificate {
        let key = KeyMaterial::generate().unwrap();
        let chain = self.issuer.issue_agent(&key.public(), "eu-1", "uid", 11, year()).unwrap();
        Certificate::new(&chain, key).unwrap()
    }

    pub(crate) fn tls(&self, node: NodeId) -> PeerTls {
        PeerTls { certificate: self.hub(node), bundle: self.bundle() }
    }

    pub(crate) fn config(&self, identity: Identity) -> PeersConfig {
        let (addresses, expected) = (Arc::clone(&self.addresses), Arc::clone(&self.expected));
        PeersConfig {
            listen: loopback(),
            identity,
            software: "windlass-hub test".into(),
            tls: self.tls(identity.node),
            expectations: Arc::new(move |node| {
                expected.lock().unwrap().get(&node).copied().unwrap_or_else(|| Expected::Known(store_of(node)))
            }),
            directory: Arc::new(move |node| addresses.lock().unwrap().get(&node).cloned()),
        }
    }

    /// Starts what `config` says and lists its address.
    pub(crate) fn start(&self, config: PeersConfig) -> Peers {
        let node = config.identity.node;
        let peers = Peers::start(config).unwrap();
        self.addresses.lock().unwrap().insert(node, peers.local_address().unwrap().to_string());
        peers
    }

    /// A sound peer with a service that answers what it is sent.
    pub(crate) fn echo(&self, node: NodeId) -> (Peers, Arc<Echo>) {
        let peers = self.start(self.config(identity(node)));
        let echo = Arc::new(Echo::default());
        peers.serve(Arc::clone(&echo) as Arc<dyn PeerService>);
        (peers, echo)
    }
}

fn year() -> Validity {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    Validity::new(now - 1_000, now + 365 * 24 * 60 * 60).unwrap()
}

/// Answers with sender, kind and request; holds calls back while its gate is shut.
#[derive(Debug)]
pub(crate) struct Echo {
    pub(crate) shut: watch::Sender<bool>,
    pub(crate) inside: watch::Sender<usize>,
    pub(crate) most: AtomicUsize,
}

impl Default for Echo {
    fn default() -> Self {
        Self { shut: watch::Sender::new(false), inside: watch::Sender::new(0), most: AtomicUsize::new(0) }
    }
}

impl PeerService for Echo {
    fn call(&self, from: NodeId, kind: CallKind, request: Bytes) -> BoxFuture<'_, Result<Bytes, String>> {
        async move {
            self.inside.send_modify(|inside| {
                *inside += 1;
                self.most.fetch_max(*inside, Ordering::SeqCst);
            });
            // Raft is never held back, so that a test can tell the classes apart.
            if kind != CallKind::Raft {
                let _ = self.shut.subscribe().wait_for(|shut| !shut).await;
            }
            self.inside.send_modify(|inside| *inside -= 1);
            match request.as_ref() {
                b"no" => Err("no, said the service".to_owned()),
                _ => Ok([format!("{from} {kind:?} ").as_bytes(), &request].concat().into()),
            }
        }
        .boxed()
    }

    fn snapshot<'a>(
        &'a self,
        _: NodeId,
        _: Bytes,
        _: &'a mut (dyn AsyncRead + Send + Unpin),
    ) -> BoxFuture<'a, Result<Bytes, String>> {
        async { Err("no snapshots here".to_owned()) }.boxed()
    }

    fn stranger(&self, _: SocketAddr, request: Bytes) -> BoxFuture<'_, Bytes> {
        async move {
            let _ = self.shut.subscribe().wait_for(|shut| !shut).await;
            [b"welcome ".as_slice(), &request].concat().into()
        }
        .boxed()
    }
}
