//! Which node has opened a connection. A node is found by everybody at one address, so the proxy before
//! it cannot tell by the address who calls; the kernel can, by the socket at the other end.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// A process that was just started may not be entered yet.
const KNOWN_WITHIN: Duration = Duration::from_millis(500);

/// The nodes' processes, as far as they have been started.
#[derive(Debug, Clone, Default)]
pub(super) struct Diallers {
    /// Process ids by node. Held for a look only.
    pids: Arc<Mutex<BTreeMap<u64, u32>>>,
}

impl Diallers {
    pub(super) fn enter(&self, id: u64, pid: u32) {
        self.pids.lock().expect("no holder of this lock panics").insert(id, pid);
    }

    /// The node at the far end of an accepted connection: `near` is its end here.
    pub(super) async fn who(&self, far: SocketAddr, near: SocketAddr) -> Result<u64> {
        let diallers = self.clone();
        let found = tokio::task::spawn_blocking(move || {
            let end = Instant::now() + KNOWN_WITHIN;
            loop {
                match diallers.look(far, near) {
                    Err(_) if Instant::now() < end => std::thread::sleep(Duration::from_millis(10)),
                    found => return found,
                }
            }
        });
        found.await?
    }

    fn look(&self, far: SocketAddr, near: SocketAddr) -> Result<u64> {
        let table = std::fs::read_to_string("/proc/net/tcp")?;
        let inode = inode_of(&table, far, near).context("no such connection")?;
        let socket = format!("socket:[{inode}]");
        let pids = self.pids.lock().expect("no holder of this lock panics").clone();
        let owner = pids.into_iter().find(|(_, pid)| has_open(*pid, &socket));
        owner.map(|(id, _)| id).context("no node has it")
    }
}

fn has_open(pid: u32, socket: &str) -> bool {
    // A process that has ended has nothing open.
    let Ok(open) = std::fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    open.flatten()
        .any(|entry| std::fs::read_link(entry.path()).is_ok_and(|target| target == Path::new(socket)))
}

/// Of the socket whose own address is `local`. The table's columns are number, local address, remote
/// address, state, queues, timer, retransmits, user, time-out, inode; addresses are hexadecimal, the IP in
/// the byte order of the machine.
fn inode_of(table: &str, local: SocketAddr, remote: SocketAddr) -> Option<u64> {
    let hex = |address: SocketAddr| match address {
        SocketAddr::V4(v4) => Some(format!(
            "{:08X}:{:04X}",
            u32::from_ne_bytes(v4.ip().octets()),
            v4.port()
        )),
        SocketAddr::V6(_) => None,
    };
    let (local, remote) = (hex(local)?, hex(remote)?);
    table.lines().find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let wanted = columns.get(1) == Some(&local.as_str()) && columns.get(2) == Some(&remote.as_str());
        columns.get(9).filter(|_| wanted)?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_is_traced_to_the_process_that_opened_it() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port is free");
        let near = listener.local_addr().expect("it listens");
        let _dialler = tokio::net::TcpStream::connect(near).await.expect("it listens");
        let (_accepted, far) = listener.accept().await.expect("somebody connects");
        let diallers = Diallers::default();
        assert!(diallers.who(far, near).await.is_err(), "nobody is known yet");
        diallers.enter(2, 1);
        diallers.enter(7, std::process::id());
        assert_eq!(diallers.who(far, near).await.expect("it is this process"), 7);
    }
}
