//! Datagrams that arrive later: one bounded queue in the order of their time.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
    net::SocketAddr,
    sync::Arc,
};

use tokio::{
    net::UdpSocket,
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Datagrams under way at a time: 0.5 s of 10,000 a second, some 6 MiB.
const UNDER_WAY_MAX: usize = 5_000;

/// A datagram that is due later.
#[derive(Debug)]
pub(super) struct Delayed {
    pub(super) due: Instant,
    pub(super) socket: Arc<UdpSocket>,
    /// `None` for a connected socket.
    pub(super) to: Option<SocketAddr>,
    pub(super) bytes: Vec<u8>,
}

/// The way into the queue.
#[derive(Debug)]
pub(super) struct DelayLine {
    queue: mpsc::Sender<Delayed>,
}

impl DelayLine {
    pub(super) fn start(tasks: &TaskTracker, stop: CancellationToken) -> Self {
        let (queue, incoming) = mpsc::channel(UNDER_WAY_MAX);
        tasks.spawn(run(incoming, stop));
        Self { queue }
    }

    /// Whether it fit.
    pub(super) fn push(&self, delayed: Delayed) -> bool {
        self.queue.try_send(delayed).is_ok()
    }
}

async fn run(mut incoming: mpsc::Receiver<Delayed>, stop: CancellationToken) {
    let mut waiting: BinaryHeap<Reverse<Queued>> = BinaryHeap::new();
    let mut number = 0_u64;
    loop {
        let due = waiting.peek().map(|Reverse(queued)| queued.delayed.due);
        tokio::select! {
            () = stop.cancelled() => return,
            delayed = incoming.recv(), if waiting.len() < UNDER_WAY_MAX => {
                let Some(delayed) = delayed else { return };
                number += 1;
                waiting.push(Reverse(Queued { delayed, number }));
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                if let Some(Reverse(Queued { delayed, .. })) = waiting.pop() {
                    // A full socket buffer loses datagrams on any link.
                    let _ = match delayed.to {
                        Some(to) => delayed.socket.try_send_to(&delayed.bytes, to),
                        None => delayed.socket.try_send(&delayed.bytes),
                    };
                }
            }
        }
    }
}

/// Ordered by time, then by arrival.
#[derive(Debug)]
struct Queued {
    delayed: Delayed,
    number: u64,
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.delayed.due, self.number).cmp(&(other.delayed.due, other.number))
    }
}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Queued {}
