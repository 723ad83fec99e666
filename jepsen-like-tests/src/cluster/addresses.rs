//! Loopback addresses of its own for each cluster, so that tests run side by side without sharing
//! ports: node i of a cluster listens on the i-th address of a block in 127.0.0.0/8.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, bail};

pub(super) const CLIENT_PORT: u16 = 7100;
pub(super) const PEER_PORT: u16 = 7200;
/// Where the proxy listens that stands before a node's peer port.
pub(super) const LINK_PORT: u16 = 7300;

/// Addresses of one block: enough for nodes 1 to 15.
const BLOCK: u32 = 16;
/// 127.1.0.0 to 127.255.255.255 in blocks: 127.0.x.x is left to everybody else.
const BLOCKS: u32 = (255 << 16) / BLOCK;
/// Clusters that one process starts before its blocks may meet those of the next process id.
const BLOCKS_PER_PROCESS: u32 = 61;
/// The network of an isolated cluster, for as many places as one prefix of 24 bits has, but the last.
const ISOLATED: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 0);
const ISOLATED_BLOCK: u32 = 254;
/// How many blocks are tried before giving up: each is taken only by another run on this machine.
const TRIES: u32 = 64;

/// The addresses of one cluster.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    first: u32,
    /// How many addresses from the first one on.
    size: u32,
}

impl Block {
    /// That of an isolated cluster, whose network nobody else sees: nodes 1 to 253, and clients at 254.
    pub(super) fn isolated() -> Self {
        Self {
            first: u32::from(ISOLATED),
            size: ISOLATED_BLOCK,
        }
    }

    /// Where clients of an isolated cluster are.
    pub(super) fn outside(&self) -> IpAddr {
        IpAddr::from(Ipv4Addr::from(self.first + self.size))
    }

    /// The smallest place of a node that is none of these.
    pub(super) fn free_slot(&self, taken: &BTreeSet<u64>) -> Option<u64> {
        (1..u64::from(self.size)).find(|slot| !taken.contains(slot))
    }

    /// Takes the next block on which nodes 1 to `nodes` can listen.
    pub(super) fn take(nodes: u64) -> Result<Self> {
        static TAKEN: AtomicU32 = AtomicU32::new(0);
        let own = std::process::id().wrapping_mul(BLOCKS_PER_PROCESS);
        for _ in 0..TRIES {
            let number = own.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed)) % BLOCKS;
            let block = Self {
                first: u32::from(Ipv4Addr::new(127, 1, 0, 0)) + number * BLOCK,
                size: BLOCK,
            };
            if (1..=nodes).all(|id| block.is_free(id)) {
                return Ok(block);
            }
        }
        bail!("no free loopback addresses in {TRIES} blocks: does this machine route 127.0.0.0/8 to loopback?")
    }

    pub(super) fn client(&self, id: u64) -> SocketAddr {
        self.at(id, CLIENT_PORT)
    }

    pub(super) fn peer(&self, id: u64) -> SocketAddr {
        self.at(id, PEER_PORT)
    }

    /// Where everybody finds the node, if there is a proxy before it.
    pub(super) fn front(&self, to: u64) -> SocketAddr {
        self.at(to, LINK_PORT)
    }

    fn at(&self, id: u64, port: u16) -> SocketAddr {
        let offset = u32::try_from(id).expect("a node's id fits its block");
        assert!(
            offset < self.size,
            "a block has addresses for nodes 1 to {}",
            self.size - 1
        );
        SocketAddr::from((Ipv4Addr::from(self.first + offset), port))
    }

    /// Nothing listens there: both ports can be bound, and are given back at once.
    fn is_free(&self, id: u64) -> bool {
        [self.client(id), self.peer(id)]
            .into_iter()
            .all(|address| TcpListener::bind(address).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_clusters_share_no_address() {
        let one = Block::take(5).expect("a block is free");
        let two = Block::take(5).expect("another block is free");
        for i in 1..=5 {
            for j in 1..=5 {
                assert_ne!(one.client(i).ip(), two.client(j).ip());
            }
        }
        assert!(one.client(1).ip().is_loopback());
    }

    #[test]
    fn a_block_in_use_is_passed_over() {
        let block = Block::take(3).expect("a block is free");
        assert!(block.is_free(2));
        let _listening = TcpListener::bind(block.peer(2)).expect("the address is free");
        assert!(!block.is_free(2));
    }
}
