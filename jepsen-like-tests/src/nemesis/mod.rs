//! What is done to a cluster: each kind of fault is made, lasts, and is healed.
//!
//! One concept a file. Faults overlap: whoever makes one first claims in the cluster's [`Book`] what it is
//! about to break, so that two faults do not pull at one process, and never more disks are damaged than
//! the cluster can do without. [`heal_all`] ends what is left of all of them.

mod book;
mod clock_jump;
mod damage;
mod disk_error;
mod disk_full;
mod heal;
mod hung_disk;
mod kill;
mod links;
mod membership;
mod packets;
mod partition;
mod pause;
mod pick;
mod power;
mod requests;
mod wish;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use rand_chacha::ChaCha8Rng;

pub use self::book::Book;
pub use self::heal::{heal_all, unexpected_ends};
use crate::cluster::Cluster;

/// A fault that was made.
pub struct Begun {
    /// For people and for the history, for example `node 2, which leads`.
    pub what: String,
    pub nodes: Vec<u64>,
    /// Until it is to be healed. Zero for what is over at once.
    pub lasts: Duration,
    /// Ends it: the nodes are on their way to be well again. Does not wait until they are: what takes longer
    /// goes on by itself, and [`heal_all`] waits for it.
    pub heal: BoxFuture<'static, Result<()>>,
}

impl Begun {
    /// What is over at once.
    fn over(what: String, nodes: Vec<u64>) -> Self {
        Self {
            what,
            nodes,
            lasts: Duration::ZERO,
            heal: async { Ok(()) }.boxed(),
        }
    }
}

#[async_trait]
pub trait Fault: Send + Sync {
    /// As it is named on the command line, in the history and in reports, for example `kill`.
    fn kind(&self) -> &'static str;

    /// One line: what is done.
    fn about(&self) -> &'static str;

    /// Why it cannot be made on this machine or on this cluster.
    fn permitted(&self, _cluster: &Cluster) -> Result<(), String> {
        Ok(())
    }

    /// Makes it, with whatever `dice` says. None: not at this moment, because of what is broken already
    /// (a majority must stay able to recover, and acknowledged data must stay on a majority of disks).
    async fn begin(&self, cluster: &Arc<Cluster>, dice: &mut ChaCha8Rng) -> Result<Option<Begun>>;
}

/// Every kind of fault there is, those first that need least.
pub fn all() -> Vec<Box<dyn Fault>> {
    use self::partition::Shape;
    vec![
        Box::new(kill::Kill),
        Box::new(kill::KillAll),
        Box::new(pause::Pause),
        Box::new(partition::Partition(Shape::Halves)),
        Box::new(partition::Partition(Shape::Ring)),
        Box::new(partition::Partition(Shape::Bridge)),
        Box::new(partition::Partition(Shape::OneWay)),
        Box::new(partition::Partition(Shape::Leader)),
        Box::new(links::SlowNetwork),
        Box::new(links::CorruptBytes),
        Box::new(links::ResetConnections),
        Box::new(packets::PacketLoss),
        Box::new(packets::LeaderFromClients),
        Box::new(power::Power),
        Box::new(power::PowerAll),
        Box::new(disk_error::FsyncError),
        Box::new(disk_error::DeadDisk),
        Box::new(hung_disk::HungDisk),
        Box::new(disk_full::DiskFull),
        Box::new(clock_jump::ClockJump),
        Box::new(damage::BitFlip),
        Box::new(damage::Truncate),
        Box::new(membership::Membership),
        Box::new(requests::Snapshot),
        Box::new(requests::Transfer),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_words_and_no_two_are_the_same() {
        let kinds: Vec<&str> = all().iter().map(|fault| fault.kind()).collect();
        for (at, kind) in kinds.iter().enumerate() {
            assert!(kind.chars().all(|c| c == '-' || c.is_ascii_lowercase()), "{kind}");
            assert!(!kinds[..at].contains(kind), "{kind} stands twice");
        }
    }
}
