//! Many agents against real hub processes: `windlass-chaos load`.
//!
//! The agents are the real protocol's agent half over real QUIC with identities of their own, enrolled with real tokens; what
//! they lack is a cluster. So what is measured is the hub, and the way back to it.
//!
//! | module | what |
//! |---|---|
//! | `agent` | one agent: enrols, dials with backoff, keeps a session |
//! | `crowd` | many of them, and what they have seen |
//! | `measure` | memory per session; the return of everybody after a restart of all hubs |
//! | `cli` | arguments |

pub mod agent;
pub mod cli;
pub mod crowd;
pub mod measure;
