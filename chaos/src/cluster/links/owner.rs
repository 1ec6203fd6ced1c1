//! Which hub a UDP port belongs to: asked of the system (`/proc`), which knows the sockets of each process.

use std::{collections::BTreeMap, fs};

/// Ports and processes of the hubs of a group, counted from 0.
#[derive(Debug)]
pub(super) struct Owners {
    /// Port on which a hub listens for its peers; it may dial from there too.
    peer_ports: BTreeMap<u16, usize>,
    /// The process that a hub runs as, and how many there were.
    processes: BTreeMap<usize, (u32, u64)>,
}

impl Owners {
    pub(super) fn new(peer_ports: &[u16]) -> Self {
        let peer_ports = peer_ports.iter().enumerate().map(|(hub, port)| (*port, hub)).collect();
        Self { peer_ports, processes: BTreeMap::new() }
    }

    pub(super) fn started(&mut self, hub: usize, process: u32) {
        let entry = self.processes.entry(hub).or_default();
        *entry = (process, entry.1 + 1);
    }

    /// How many processes a hub has had.
    pub(super) fn generation(&self, hub: usize) -> u64 {
        self.processes.get(&hub).map_or(0, |(_, generation)| *generation)
    }

    /// The hub that has a socket on a port, and the number of its process.
    pub(super) fn of(&self, port: u16) -> Option<(usize, u64)> {
        if let Some(hub) = self.peer_ports.get(&port) {
            return Some((*hub, self.generation(*hub)));
        }
        let inodes = inodes(port);
        let holder = self.processes.iter().find(|(_, (process, _))| holds(*process, &inodes));
        holder.map(|(hub, (_, generation))| (*hub, *generation))
    }
}

/// Inodes of the UDP sockets on a port.
fn inodes(port: u16) -> Vec<String> {
    let wanted = format!(":{port:04X}");
    let mut found = Vec::new();
    for table in ["/proc/net/udp", "/proc/net/udp6"] {
        let text = fs::read_to_string(table).unwrap_or_default();
        for line in text.lines().skip(1) {
            // sl local_address rem_address st queues tr:when retrnsmt uid timeout inode ...
            let mut fields = line.split_whitespace();
            let local = fields.nth(1).unwrap_or_default();
            if local.ends_with(&wanted)
                && let Some(inode) = fields.nth(7)
            {
                found.push(format!("socket:[{inode}]"));
            }
        }
    }
    found
}

/// Whether a process has one of these sockets open.
fn holds(process: u32, inodes: &[String]) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{process}/fd")) else { return false };
    files.flatten().any(|file| {
        let target = fs::read_link(file.path()).unwrap_or_default();
        inodes.iter().any(|inode| target.as_os_str() == inode.as_str())
    })
}
