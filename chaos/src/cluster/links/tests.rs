//! The proxy between real sockets of this process.

use super::*;
use crate::host::free_port;

const DEADLINE: Duration = Duration::from_secs(20);

/// Two hubs as two sockets that send from their peer ports.
struct Pair {
    links: Links,
    hubs: [UdpSocket; 2],
}

impl Pair {
    async fn new(seed: u64) -> Self {
        let ports = [free_port().unwrap(), free_port().unwrap()];
        let bind = async |port| UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let hubs = [bind(ports[0]).await, bind(ports[1]).await];
        Self { links: Links::start(&ports, seed).await.unwrap(), hubs }
    }

    /// Sends numbered datagrams from hub 0 to hub 1 through the proxy, and waits until all are counted.
    async fn send(&self, count: u64) {
        let before = self.links.traffic();
        for number in 0..count {
            self.hubs[0].send_to(&number.to_be_bytes(), self.links.front(1).unwrap()).await.unwrap();
        }
        let end = Instant::now() + DEADLINE;
        while self.links.traffic().received < before.received + count {
            assert!(Instant::now() < end, "{:?}", self.links.traffic());
            tokio::task::yield_now().await;
        }
    }

    async fn receive(&self, hub: usize) -> (u64, SocketAddr) {
        let mut buffer = [0; 8];
        let received = tokio::time::timeout(DEADLINE, self.hubs[hub].recv_from(&mut buffer)).await;
        let (length, source) = received.unwrap().unwrap();
        assert_eq!(length, 8);
        (u64::from_be_bytes(buffer), source)
    }
}

#[tokio::test]
async fn forwards_both_ways_and_knows_the_sender() {
    let pair = Pair::new(1).await;
    pair.send(1).await;
    let (number, source) = pair.receive(1).await;
    assert_eq!(number, 0);
    pair.hubs[1].send_to(&7_u64.to_be_bytes(), source).await.unwrap();
    let (number, source) = pair.receive(0).await;
    assert_eq!((number, Some(source)), (7, pair.links.front(1)));

    // Only the way there is blocked: the answer to an older datagram still arrives.
    let (_, back) = {
        pair.send(1).await;
        pair.receive(1).await
    };
    pair.links.set(0, 1, Weather::BLOCKED);
    let dropped = pair.links.traffic().dropped;
    pair.send(3).await;
    assert_eq!(pair.links.traffic().dropped, dropped + 3);
    pair.hubs[1].send_to(&8_u64.to_be_bytes(), back).await.unwrap();
    assert_eq!(pair.receive(0).await.0, 8);

    pair.links.heal();
    pair.send(1).await;
    assert_eq!(pair.receive(1).await.0, 0);
}

#[tokio::test]
async fn strangers_are_dropped() {
    let pair = Pair::new(1).await;
    let stranger = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    stranger.send_to(&1_u64.to_be_bytes(), pair.links.front(1).unwrap()).await.unwrap();
    pair.send(1).await;
    assert_eq!(pair.links.traffic().strangers, 1);
    // A socket of a process of the group is known by that.
    pair.links.started(0, std::process::id());
    stranger.send_to(&5_u64.to_be_bytes(), pair.links.front(1).unwrap()).await.unwrap();
    pair.receive(1).await;
    assert_eq!(pair.receive(1).await.0, 5);
}

#[tokio::test]
async fn weather_follows_the_seed() {
    let rough = Weather {
        lost: 300,
        doubled: 100,
        reordered: 100,
        delay_min: Duration::from_millis(1),
        delay_max: Duration::from_millis(5),
        ..Weather::default()
    };
    let mut all = Vec::new();
    for seed in [1, 1, 2] {
        let pair = Pair::new(seed).await;
        pair.links.set_all(rough);
        let (mut numbers, mut overtaken) = (Vec::new(), false);
        // In portions that fit into the sockets' buffers.
        for _ in 0..10 {
            let before = pair.links.traffic().forwarded;
            pair.send(40).await;
            let mut portion = Vec::new();
            for _ in before..pair.links.traffic().forwarded {
                portion.push(pair.receive(1).await.0);
            }
            overtaken |= !portion.is_sorted();
            portion.sort_unstable();
            numbers.append(&mut portion);
        }
        let traffic = pair.links.traffic();
        assert!((70..170).contains(&traffic.dropped), "{traffic:?}");
        assert!(traffic.forwarded + traffic.dropped > 410, "some arrive twice: {traffic:?}");
        assert!(overtaken, "some are overtaken");
        all.push(numbers);
    }
    assert_eq!(all[0], all[1], "the same seed loses the same datagrams");
    assert_ne!(all[0], all[2]);
}
