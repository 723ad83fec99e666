//! Processes end from one moment to the next, and start again later over what their disks hold.

use std::sync::Arc;

use anyhow::Result;
use futures::FutureExt;
use futures::future::BoxFuture;
use rand_chacha::ChaCha8Rng;

use super::book::{Claim, Ends};
use super::{Begun, Fault, pick};
use crate::cluster::Cluster;

pub(super) struct Kill;

impl Fault for Kill {
    fn kind(&self) -> &'static str {
        "kill"
    }

    fn about(&self) -> &'static str {
        "kill -9 of the leader, a follower, any node or a minority"
    }

    fn permitted(&self, _: &Cluster) -> Result<(), String> {
        Ok(())
    }

    fn begin<'a>(
        &'a self,
        cluster: &'a Arc<Cluster>,
        dice: &'a mut ChaCha8Rng,
    ) -> BoxFuture<'a, Result<Option<Begun>>> {
        async move {
            let Some(victims) = pick::some(cluster, &pick::free(cluster, dice), dice).await else {
                return Ok(None);
            };
            let Some(claim) = cluster.book.claim(&victims.ids, Ends::AreMeant) else {
                return Ok(None);
            };
            cluster.end(&victims.ids).await?;
            Ok(Some(Begun {
                what: victims.what,
                nodes: victims.ids,
                lasts: pick::between(dice, 100, 3000),
                heal: start_again(cluster.clone(), claim).boxed(),
            }))
        }
        .boxed()
    }
}

pub(super) struct KillAll;

impl Fault for KillAll {
    fn kind(&self) -> &'static str {
        "kill-all"
    }

    fn about(&self) -> &'static str {
        "kill -9 of all nodes at the same moment"
    }

    fn permitted(&self, _: &Cluster) -> Result<(), String> {
        Ok(())
    }

    fn begin<'a>(
        &'a self,
        cluster: &'a Arc<Cluster>,
        dice: &'a mut ChaCha8Rng,
    ) -> BoxFuture<'a, Result<Option<Begun>>> {
        async move {
            let ids = cluster.ids();
            let Some(claim) = cluster.book.claim(&ids, Ends::AreMeant) else {
                return Ok(None);
            };
            cluster.end(&ids).await?;
            Ok(Some(Begun {
                what: "all nodes".to_owned(),
                nodes: ids,
                lasts: pick::between(dice, 100, 1000),
                heal: start_again(cluster.clone(), claim).boxed(),
            }))
        }
        .boxed()
    }
}

/// Starts the nodes of the claim, whose processes have ended, and lets go of them.
pub(super) async fn start_again(cluster: Arc<Cluster>, claim: Claim) -> Result<()> {
    claim.ids().iter().try_for_each(|id| cluster.restart(*id))
}
