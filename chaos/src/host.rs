//! Programs on this machine, for tests and chaos: processes with a log, free ports, work directories, bounded waiting.
//!
//! Nothing here outlives its value, listens on anything but loopback, or waits without a deadline.

mod ports;
mod process;
mod scenario;
mod wait;
mod workdir;

pub use self::{
    ports::free_port,
    process::{Process, Signal},
    scenario::scenario,
    wait::{START_DEADLINE, WAIT_DEADLINE, wait_until},
    workdir::Workdir,
};
