//! A disk that does not answer: no error, no success. A leader on it has to hand over, or to end itself.

use std::sync::Arc;

use anyhow::Result;
use futures::FutureExt;
use futures::future::BoxFuture;
use rand_chacha::ChaCha8Rng;

use super::book::Ends;
use super::heal::until_ready;
use super::{Begun, Fault, pick};
use crate::cluster::Cluster;

pub(super) struct HungDisk;

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

    fn begin<'a>(
        &'a self,
        cluster: &'a Arc<Cluster>,
        dice: &'a mut ChaCha8Rng,
    ) -> BoxFuture<'a, Result<Option<Begun>>> {
        async move {
            let Some(victim) = pick::one(cluster, &pick::free(cluster, dice), dice).await else {
                return Ok(None);
            };
            let Some(claim) = cluster.book.claim(&victim.ids, Ends::AreMeant) else {
                return Ok(None);
            };
            let id = victim.ids[0];
            cluster.freeze_disk(id)?;
            let cluster = cluster.clone();
            Ok(Some(Begun {
                what: victim.what,
                nodes: victim.ids,
                lasts: pick::between(dice, 1000, 5000),
                heal: async move {
                    cluster.thaw_disk(id)?;
                    cluster.book.mend(until_ready(cluster.clone(), claim).boxed());
                    Ok(())
                }
                .boxed(),
            }))
        }
        .boxed()
    }
}
