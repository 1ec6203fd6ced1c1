//! Every bound of the peer transport, and why it has its value.

use std::time::Duration;

use windlass_transport::endpoint::{FrameLimits, ListenerLimits, RestartKey, Tuning, UnauthenticatedLimits};

/// Raft calls to one peer at a time. Replication uses one, an election one; the rest is for calls that time out.
pub const RAFT_CALLS_MAX: usize = 32;
/// Service calls to one peer at a time: forwarded proposals and reads.
pub const SERVICE_CALLS_MAX: usize = 64;
/// Bulk calls to one peer at a time.
pub const BULK_CALLS_MAX: usize = 8;
/// Snapshots on their way to one peer: one, and one that is being given up.
pub const SNAPSHOT_STREAMS_MAX: usize = 2;
/// Largest request or answer: 1 MiB of entries plus one entry of 1 MiB, with room for envelopes.
pub const PEER_FRAME_BYTES_MAX: usize = 4 << 20;
/// Largest request of a hub that joins.
pub const JOIN_REQUEST_BYTES_MAX: usize = 16 << 10;
/// Largest answer to it: certificates, and the addresses of the members.
pub const JOIN_ANSWER_BYTES_MAX: usize = 64 << 10;
/// A hub that joins has an answer after this time, or none: a join goes through Raft, perhaps across an election.
pub const JOIN_LIFETIME: Duration = Duration::from_secs(15);

/// Worker threads.
pub(super) const THREADS: usize = 2;
/// One attempt to connect to one address, with the hello: three round trips between continents.
pub(super) const DIAL: Duration = Duration::from_secs(2);
/// After a failed attempt, calls fail at once for so long; the next one dials again.
pub(super) const RETRY_AFTER: Duration = Duration::from_millis(100);
/// How often it is looked whether a connected peer was removed.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Looks that find a peer removed before it is cut off: one more, so that a leader that is removed can still commit that.
pub(super) const LOOKS: u32 = 2;
/// A peer says who it is within this time.
pub(super) const HELLO: Duration = Duration::from_secs(2);
/// A request that has begun is complete after this time.
pub(super) const REQUEST: Duration = Duration::from_secs(30);
/// A service answers within this time, or the caller is told that it did not.
pub(super) const ANSWER: Duration = Duration::from_secs(60);
/// While a snapshot is received and installed, the sender hears this often that it is still under way.
pub(super) const PROGRESS_EVERY: Duration = Duration::from_secs(5);
/// A sender that heard nothing for so long gives up on the snapshot.
pub(super) const PROGRESS: Duration = Duration::from_secs(60);
/// A stranger's request is complete after this time.
pub(super) const JOIN_REQUEST: Duration = Duration::from_secs(5);
/// Its answer is made within this time; the rest of [`JOIN_LIFETIME`] is for sending it.
pub(super) const JOIN_ANSWER: Duration = Duration::from_secs(8);
/// Last words are delivered within this time.
pub(super) const GOODBYE: Duration = Duration::from_secs(1);
/// Bytes of a sentence in a close frame, which must fit into one packet.
pub(super) const REASON_BYTES: usize = 900;

/// Bytes on one stream ahead of its reader.
const STREAM_WINDOW: u32 = 2 << 20;
/// Streams of all classes together, the hello, and those whose end was not yet noticed.
const STREAMS: u32 = 160;

/// Behaviour of connections between hubs.
pub(super) fn tuning() -> Tuning {
    Tuning {
        // A dead peer is noticed after 3 s, and every call to it fails at its own deadline long before.
        keep_alive: Duration::from_secs(1),
        idle_timeout: Duration::from_secs(3),
        // A lost first packet must not cost an election: sent again after 0.3 s.
        initial_rtt: Duration::from_millis(100),
        bidirectional_streams: STREAMS,
        unidirectional_streams: 0,
        stream_window: STREAM_WINDOW,
        // Both above what all streams may hold together: no class can ever use up another's room. These are bounds of
        // a sick connection; a sound one holds next to nothing.
        connection_window: STREAMS * STREAM_WINDOW,
        send_window: STREAMS * STREAM_WINDOW,
        frames: FrameLimits {
            frame: PEER_FRAME_BYTES_MAX,
            receive_deadline: REQUEST,
            send_deadline: REQUEST,
            open_deadline: DIAL,
        },
        ..Tuning::default()
    }
}

pub(super) fn listener(restart_key: RestartKey) -> ListenerLimits {
    ListenerLimits {
        tuning: tuning(),
        unauthenticated: UnauthenticatedLimits {
            // Header and stream bytes on top of the payload.
            bytes: 17 << 10,
            answer: JOIN_ANSWER_BYTES_MAX,
            lifetime: JOIN_LIFETIME,
            connections: 32,
        },
        // Five hubs, their reconnects, and strangers.
        connections: 128,
        handshakes: 32,
        handshakes_per_second: 200,
        waiting: 128,
        handshake_timeout: Duration::from_secs(5),
        restart_key: Some(restart_key),
    }
}
