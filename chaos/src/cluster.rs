//! Faults against real processes: `windlass-chaos cluster`.
//!
//! A group of hub binaries on loopback, clients that record what they did, and a fault. What is under test is everything:
//! processes, disks, QUIC, TLS. The seed narrows what happens and does not fix it: threads and sockets have their own mind.
//!
//! | module | what |
//! |---|---|
//! | `group`, `programs` | hub processes: found, join, kill, pause, restart |
//! | `links` | UDP proxies between the hubs: loss, delay, doubles, order, blocks by (sender, receiver) |
//! | `api`, `register`, `workload` | clients with the discipline of real ones |
//! | `history`, `linearizable` | what they did, and whether one register could have done it |
//! | `fleet` | agents in this process, and something to deliver to them |
//! | `stage` | group, clients and final examination of every scenario |
//! | `kill`, `scenarios`, `bench` | what to run; `cli` says how |

pub mod api;
pub mod bench;
pub mod cli;
pub mod figures;
pub mod fleet;
pub mod group;
pub mod history;
pub mod kill;
pub mod linearizable;
pub mod links;
pub mod programs;
pub mod register;
pub mod scenarios;
pub mod stage;
pub mod workload;
