//! The network between the hubs: a UDP proxy before each hub's peer port, which loses, delays, doubles, reorders and blocks
//! datagrams by (sender, receiver).
//!
//! ```text
//! hub 1 ──► front of hub 2 ──► back (one per flow) ──► peer port of hub 2
//!       ◄──                ◄──                     ◄──
//! ```
//! Hubs know each other only by the fronts. A datagram's sender is found by its source port: the peer port itself, or a socket
//! that a process of the group holds. What cannot be told is dropped, so that no partition leaks; QUIC sends again.
//! Never looks into a datagram. Queues and flows are bounded: what does not fit is lost, as on a real link.

mod delay;
mod owner;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::{net::UdpSocket, time::Instant};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use self::{
    delay::{DelayLine, Delayed},
    owner::Owners,
};
use crate::sim::Random;

/// Flows of one front: each restart of a peer makes a few; the oldest goes first.
const FLOWS_MAX: usize = 64;
/// Largest datagram: UDP's own limit.
const DATAGRAM_BYTES_MAX: usize = 65_536;

/// What a link does to datagrams in one direction. The default lets everything through at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// Nothing gets through.
    pub blocked: bool,
    /// Of 1,000 datagrams so many are lost.
    pub lost: u64,
    /// Of 1,000 datagrams so many arrive twice.
    pub doubled: u64,
    /// Of 1,000 datagrams so many are held back so that later ones overtake them.
    pub reordered: u64,
    /// Least delay.
    pub delay_min: Duration,
    /// Most delay; different delays reorder too.
    pub delay_max: Duration,
}

impl Weather {
    /// Nothing gets through.
    pub const BLOCKED: Self =
        Self { blocked: true, lost: 0, doubled: 0, reordered: 0, delay_min: Duration::ZERO, delay_max: Duration::ZERO };
}

/// What the proxies did so far, in datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Received and dealt with.
    pub received: u64,
    /// Forwarded, doubles included.
    pub forwarded: u64,
    /// Lost on purpose or blocked.
    pub dropped: u64,
    /// Of a sender that could not be told.
    pub strangers: u64,
}

/// All proxies of a group. Dropping it ends them.
#[derive(Debug)]
pub struct Links {
    shared: Arc<Shared>,
    fronts: Vec<SocketAddr>,
    _tasks: DropGuard,
}

#[derive(Debug)]
struct Shared {
    /// By (sender, receiver), counted from 0.
    weather: Mutex<BTreeMap<(usize, usize), Weather>>,
    random: Mutex<Random>,
    owners: Mutex<Owners>,
    delays: DelayLine,
    stop: CancellationToken,
    tracker: TaskTracker,
    received: AtomicU64,
    forwarded: AtomicU64,
    dropped: AtomicU64,
    strangers: AtomicU64,
}

impl Links {
    /// A front for each of the given peer ports.
    ///
    /// # Errors
    /// When a socket cannot be had.
    pub async fn start(peer_ports: &[u16], seed: u64) -> Result<Self> {
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        let tracker = TaskTracker::new();
        let delays = DelayLine::start(&tracker, stop.clone());
        let shared = Arc::new(Shared {
            weather: Mutex::default(),
            random: Mutex::new(Random::new(seed)),
            owners: Mutex::new(Owners::new(peer_ports)),
            delays,
            stop,
            tracker: tracker.clone(),
            received: AtomicU64::new(0),
            forwarded: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            strangers: AtomicU64::new(0),
        });
        let mut fronts = Vec::new();
        for (number, port) in peer_ports.iter().enumerate() {
            let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.context("a socket for a proxy")?;
            front.writable().await.context("a proxy that can send")?;
            fronts.push(front.local_addr().context("the address of a proxy")?);
            let target = SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
            tracker.spawn(Front::new(Arc::clone(&shared), number, target, front).run());
        }
        Ok(Self { shared, fronts, _tasks: guard })
    }

    /// Where the peers of a hub dial it.
    #[must_use]
    pub fn front(&self, hub: usize) -> Option<SocketAddr> {
        self.fronts.get(hub).copied()
    }

    /// A process of a hub started: its sockets are that hub's.
    pub fn started(&self, hub: usize, process: u32) {
        lock(&self.shared.owners).started(hub, process);
    }

    /// Sets what happens to datagrams from one hub to another.
    pub fn set(&self, from: usize, to: usize, weather: Weather) {
        lock(&self.shared.weather).insert((from, to), weather);
    }

    /// Sets it for all pairs.
    pub fn set_all(&self, weather: Weather) {
        for from in 0..self.fronts.len() {
            for to in (0..self.fronts.len()).filter(|to| *to != from) {
                self.set(from, to, weather);
            }
        }
    }

    /// Cuts a hub off from all others, both ways.
    pub fn isolate(&self, hub: usize) {
        for other in (0..self.fronts.len()).filter(|other| *other != hub) {
            self.set(hub, other, Weather::BLOCKED);
            self.set(other, hub, Weather::BLOCKED);
        }
    }

    /// Fair weather everywhere.
    pub fn heal(&self) {
        lock(&self.shared.weather).clear();
    }

    /// Counters.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        let load = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        let shared = &self.shared;
        Traffic {
            received: load(&shared.received),
            forwarded: load(&shared.forwarded),
            dropped: load(&shared.dropped),
            strangers: load(&shared.strangers),
        }
    }
}

/// The proxy before one hub.
struct Front {
    shared: Arc<Shared>,
    hub: usize,
    target: SocketAddr,
    socket: Arc<UdpSocket>,
    flows: BTreeMap<SocketAddr, Flow>,
    /// Counts datagrams: says which flow was used last.
    clock: u64,
}

/// The datagrams of one socket of a peer, both ways.
struct Flow {
    sender: usize,
    /// Which process it was; another one may get the same port.
    generation: u64,
    back: Arc<UdpSocket>,
    used: u64,
    _answers: DropGuard,
}

impl Front {
    fn new(shared: Arc<Shared>, hub: usize, target: SocketAddr, socket: UdpSocket) -> Self {
        Self { shared, hub, target, socket: Arc::new(socket), flows: BTreeMap::new(), clock: 0 }
    }

    async fn run(mut self) {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        let stop = self.shared.stop.clone();
        loop {
            let received = tokio::select! {
                () = stop.cancelled() => return,
                received = self.socket.recv_from(&mut buffer) => received,
            };
            // An error belongs to an earlier datagram whose receiver was gone.
            let Ok((length, source)) = received else { continue };
            let Some(datagram) = buffer.get(..length) else { continue };
            self.clock += 1;
            match self.flow(source).await {
                Some((sender, back)) => self.shared.forward((sender, self.hub), &back, None, datagram),
                None => drop(self.shared.strangers.fetch_add(1, Ordering::Relaxed)),
            }
            self.shared.received.fetch_add(1, Ordering::Release);
        }
    }

    /// The flow of a source, made when it is new; `None` when nobody of the group sends from there.
    async fn flow(&mut self, source: SocketAddr) -> Option<(usize, Arc<UdpSocket>)> {
        let clock = self.clock;
        if let Some(flow) = self.flows.get_mut(&source) {
            if lock(&self.shared.owners).generation(flow.sender) == flow.generation {
                flow.used = clock;
                return Some((flow.sender, Arc::clone(&flow.back)));
            }
            self.flows.remove(&source);
        }
        let (sender, generation) = lock(&self.shared.owners).of(source.port())?;
        let back = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.ok()?;
        back.connect(self.target).await.ok()?;
        // Before the first look the runtime takes a socket for full.
        back.writable().await.ok()?;
        let back = Arc::new(back);
        if self.flows.len() >= FLOWS_MAX {
            let oldest = self.flows.iter().min_by_key(|(_, flow)| flow.used).map(|(source, _)| *source);
            oldest.and_then(|source| self.flows.remove(&source));
        }
        let end = self.shared.stop.child_token();
        let answers = Answers {
            shared: Arc::clone(&self.shared),
            pair: (self.hub, sender),
            back: Arc::clone(&back),
            front: Arc::clone(&self.socket),
            source,
            end: end.clone(),
        };
        self.shared.tracker.spawn(answers.run());
        let flow = Flow { sender, generation, back: Arc::clone(&back), used: clock, _answers: end.drop_guard() };
        self.flows.insert(source, flow);
        Some((sender, back))
    }
}

/// The way back of one flow.
struct Answers {
    shared: Arc<Shared>,
    pair: (usize, usize),
    back: Arc<UdpSocket>,
    front: Arc<UdpSocket>,
    source: SocketAddr,
    end: CancellationToken,
}

impl Answers {
    async fn run(self) {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            let received = tokio::select! {
                () = self.end.cancelled() => return,
                received = self.back.recv(&mut buffer) => received,
            };
            // The hub does not run at the moment: the system says so for each datagram sent to it.
            let Ok(length) = received else { continue };
            let Some(datagram) = buffer.get(..length) else { continue };
            self.shared.forward(self.pair, &self.front, Some(self.source), datagram);
            self.shared.received.fetch_add(1, Ordering::Release);
        }
    }
}

impl Shared {
    /// Sends a datagram on, as the weather between the two allows.
    fn forward(&self, pair: (usize, usize), socket: &Arc<UdpSocket>, to: Option<SocketAddr>, datagram: &[u8]) {
        let weather = lock(&self.weather).get(&pair).copied().unwrap_or_default();
        let (lost, copies, delays) = {
            let mut random = lock(&self.random);
            let lost = weather.blocked || random.chance(weather.lost);
            let copies = if random.chance(weather.doubled) { 2 } else { 1 };
            (lost, copies, [delay(&weather, &mut random), delay(&weather, &mut random)])
        };
        if lost {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        for delay in delays.into_iter().take(copies) {
            let sent = if delay.is_zero() {
                let sent = match to {
                    Some(to) => socket.try_send_to(datagram, to),
                    None => socket.try_send(datagram),
                };
                sent.is_ok()
            } else {
                let bytes = datagram.to_vec();
                self.delays.push(Delayed { due: Instant::now() + delay, socket: Arc::clone(socket), to, bytes })
            };
            let counter = if sent { &self.forwarded } else { &self.dropped };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn delay(weather: &Weather, random: &mut Random) -> Duration {
    let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let most = weather.delay_max.max(weather.delay_min);
    let held = if random.chance(weather.reordered) { HELD_BACK } else { Duration::ZERO };
    Duration::from_micros(random.between(micros(weather.delay_min), micros(most))) + held
}

/// How long a datagram is held back so that others overtake it: long beside the distance of datagrams in a burst.
const HELD_BACK: Duration = Duration::from_millis(20);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
