//! Free loopback ports for programs that cannot report a port they chose themselves.
//!
//! The ports lie below the range from which the system takes the local ports of outgoing
//! connections, so that none is lost between the look and the bind of the program.

use std::{
    net::{Ipv4Addr, TcpListener, UdpSocket},
    process,
    sync::atomic::{AtomicU16, Ordering},
};

use anyhow::{Context as _, Result};

const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A port on which nobody listens, neither TCP nor UDP; never the same twice in a process.
pub fn free_port() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test processes that run side by side start at different places.
    let start = process::id().wrapping_mul(97) % u32::from(COUNT);
    for _ in 0..COUNT {
        let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let offset = u16::try_from((start + step) % u32::from(COUNT)).unwrap_or_default();
        let address = (Ipv4Addr::LOCALHOST, FIRST + offset);
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return Ok(address.1);
        }
    }
    None.context("no free loopback port")
}
