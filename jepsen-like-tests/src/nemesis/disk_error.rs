//! Disks that say no: a sync fails, or every write does. The node must end itself, since nobody knows what
//! the disk has kept; started again on a disk that works it is as it was.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use futures::FutureExt;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::book::Ends;
use super::heal::until_ready;
use super::{Begun, Fault, pick};
use crate::cluster::{Cluster, Syncs};

/// A node that has something to sync meets the error at once; one without load does not.
const MET_WITHIN: Duration = Duration::from_secs(2);

pub(super) struct FsyncError;

#[async_trait]
impl Fault for FsyncError {
    fn kind(&self) -> &'static str {
        "fsync-error"
    }

    fn about(&self) -> &'static str {
        "fdatasync or fsync answers EIO on a node, which is to end itself"
    }

    fn permitted(&self, cluster: &Cluster) -> Result<(), String> {
        cluster.has_failing_syncs()
    }

    async fn begin(&self, cluster: &Arc<Cluster>, dice: &mut ChaCha8Rng) -> Result<Option<Begun>> {
        let Some((victim, claim)) = pick::claim_one(cluster, dice, Ends::AreMeant).await else {
            return Ok(None);
        };
        let id = victim.id;
        let calls = match dice.random_range(0..4) {
            0 => vec![Syncs::Fsync],
            1 => vec![Syncs::Fdatasync, Syncs::Fsync, Syncs::SyncFileRange],
            _ => vec![Syncs::Fdatasync],
        };
        for call in &calls {
            if cluster.fail_syncs(id, *call).is_err() {
                // It has just been started, and does not take orders yet; or it has just ended.
                cluster.end(&[id]).await?;
                cluster.book.mend(until_ready(cluster.clone(), claim));
                return Ok(None);
            }
        }
        let names: Vec<&str> = calls.iter().map(|call| call.name()).collect();
        let cluster = cluster.clone();
        Ok(Some(Begun {
            what: format!("{} of {}", names.join(" and "), victim.what),
            nodes: vec![id],
            lasts: pick::between(dice, 500, 3000),
            heal: async move {
                let (mended, process) = (cluster.clone(), cluster.node(id));
                cluster.book.mend(async move {
                    if process.process().runs() {
                        // It had nothing to sync, and would fail when it has.
                        mended.end(&[id]).await?;
                    }
                    until_ready(mended, claim).await
                });
                Ok(())
            }
            .boxed(),
        }))
    }
}

pub(super) struct DeadDisk;

#[async_trait]
impl Fault for DeadDisk {
    fn kind(&self) -> &'static str {
        "dead-disk"
    }

    fn about(&self) -> &'static str {
        "every write to a node's disk answers EIO, and the node is to end itself; then the disk works again"
    }

    fn permitted(&self, cluster: &Cluster) -> Result<(), String> {
        cluster.is_isolated()
    }

    async fn begin(&self, cluster: &Arc<Cluster>, dice: &mut ChaCha8Rng) -> Result<Option<Begun>> {
        let Some((victim, claim)) = pick::claim_one(cluster, dice, Ends::AreMeant).await else {
            return Ok(None);
        };
        let id = victim.id;
        cluster.break_disk(id)?;
        let cluster = cluster.clone();
        Ok(Some(Begun {
            what: victim.what,
            nodes: vec![id],
            lasts: pick::between(dice, 500, 3000),
            heal: async move {
                let mended = cluster.clone();
                cluster.book.mend(async move {
                    let node = mended.node(id);
                    let ended = node.process().wait_end(MET_WITHIN).await;
                    if ended.is_err() && node.process().runs() {
                        mended.end(&[id]).await?;
                    }
                    mended.restore_disks(&[id]).await?;
                    until_ready(mended, claim).await
                });
                Ok(())
            }
            .boxed(),
        }))
    }
}
