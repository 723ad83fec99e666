//! Disks without room: writes are refused before anything breaks, and come back when there is room again.

use std::sync::Arc;

use anyhow::Result;
use async_trait::async_trait;
use futures::FutureExt;
use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::{Begun, Fault, pick};
use crate::cluster::Cluster;

/// Half of the product's own low-water mark: writes are refused, and what is on its way has room.
const LEFT: u64 = 128 << 20;

pub(super) struct DiskFull;

#[async_trait]
impl Fault for DiskFull {
    fn kind(&self) -> &'static str {
        "disk-full"
    }

    fn about(&self) -> &'static str {
        "the disk of the leader, of a majority or of all nodes has no room for writes"
    }

    fn permitted(&self, cluster: &Cluster) -> Result<(), String> {
        cluster.is_isolated()
    }

    async fn begin(&self, cluster: &Arc<Cluster>, dice: &mut ChaCha8Rng) -> Result<Option<Begun>> {
        let Some(only) = cluster.book.only(self.kind()) else {
            return Ok(None);
        };
        let leader = cluster.leader_now().await;
        // The file system of one that is claimed may be frozen or not mounted.
        let mut free = cluster.book.unclaimed(cluster.ids());
        free.shuffle(dice);
        match leader.filter(|leader| free.contains(leader) && dice.random_bool(0.4)) {
            Some(leader) => free = vec![leader],
            None if dice.random_bool(0.5) => free.truncate(cluster.ids().len() / 2 + 1),
            None => {}
        }
        let Some(claim) = cluster.book.claim(&free, super::book::Ends::AreDefects) else {
            return Ok(None);
        };
        for id in &free {
            cluster.fill_disk(*id, LEFT)?;
        }
        // From now on others may kill it, or cut its power.
        drop(claim);
        let (cluster, ids) = (cluster.clone(), free.clone());
        Ok(Some(Begun {
            what: pick::told(&free, leader),
            nodes: free,
            lasts: pick::between(dice, 2000, 5000),
            heal: async move {
                let mended = cluster.clone();
                // Not waited for: a file system that hangs meanwhile lets nobody delete anything.
                let made = tokio::task::spawn_blocking(move || {
                    let made = ids.iter().try_for_each(|id| mended.make_room(*id));
                    drop(only);
                    made
                });
                cluster.book.mend(async move { made.await? });
                Ok(())
            }
            .boxed(),
        }))
    }
}
