//! A disk that does not answer: no error, no success. A leader on it has to hand over, or to end itself.

use std::sync::Arc;

use anyhow::Result;
use async_trait::async_trait;
use futures::FutureExt;
use rand_chacha::ChaCha8Rng;

use super::book::Ends;
use super::heal::until_ready;
use super::{Begun, Fault, pick};
use crate::cluster::Cluster;

pub(super) struct HungDisk;

#[async_trait]
impl Fault for HungDisk {
    fn kind(&self) -> &'static str {
        "hung-disk"
    }

    fn about(&self) -> &'static str {
        "writes to a node's disk do not come back for some seconds"
    }

    fn permitted(&self, cluster: &Cluster) -> Result<(), String> {
        cluster.is_isolated()
    }

    async fn begin(&self, cluster: &Arc<Cluster>, dice: &mut ChaCha8Rng) -> Result<Option<Begun>> {
        let Some((victim, claim)) = pick::claim_one(cluster, dice, Ends::AreMeant).await else {
            return Ok(None);
        };
        let id = victim.id;
        cluster.freeze_disk(id)?;
        let cluster = cluster.clone();
        Ok(Some(Begun {
            what: victim.what,
            nodes: vec![id],
            lasts: pick::between(dice, 1000, 5000),
            heal: async move {
                cluster.thaw_disk(id)?;
                cluster.book.mend(until_ready(cluster.clone(), claim));
                Ok(())
            }
            .boxed(),
        }))
    }
}
