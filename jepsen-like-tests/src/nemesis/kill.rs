//! Processes end from one moment to the next, and start again later over what their disks hold.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use futures::FutureExt;
use rand_chacha::ChaCha8Rng;

use super::book::{Claim, Ends};
use super::{Begun, Fault, pick};
use crate::cluster::Cluster;

pub(super) struct Kill;

#[async_trait]
impl Fault for Kill {
    fn kind(&self) -> &'static str {
        "kill"
    }

    fn about(&self) -> &'static str {
        "kill -9 of the leader, a follower, any node or a minority"
    }

    async fn begin(&self, cluster: &Arc<Cluster>, dice: &mut ChaCha8Rng) -> Result<Option<Begun>> {
        let Some((victims, claim)) = pick::claim_some(cluster, dice, Ends::AreMeant).await else {
            return Ok(None);
        };
        cluster.end(&victims.ids).await?;
        Ok(Some(ended(
            cluster,
            victims.what,
            claim,
            pick::between(dice, 100, 3000),
        )))
    }
}

pub(super) struct KillAll;

#[async_trait]
impl Fault for KillAll {
    fn kind(&self) -> &'static str {
        "kill-all"
    }

    fn about(&self) -> &'static str {
        "kill -9 of all nodes at the same moment"
    }

    async fn begin(&self, cluster: &Arc<Cluster>, dice: &mut ChaCha8Rng) -> Result<Option<Begun>> {
        let ids = cluster.ids();
        let Some(claim) = cluster.book.claim(&ids, Ends::AreMeant) else {
            return Ok(None);
        };
        cluster.end(&ids).await?;
        let all = "all nodes".to_owned();
        Ok(Some(ended(cluster, all, claim, pick::between(dice, 100, 1000))))
    }
}

/// The processes of the claimed nodes have ended. To heal that, they are started again, and let go of.
pub(super) fn ended(cluster: &Arc<Cluster>, what: String, claim: Claim, lasts: Duration) -> Begun {
    let cluster = cluster.clone();
    Begun {
        what,
        nodes: claim.ids().to_vec(),
        lasts,
        heal: async move { claim.ids().iter().try_for_each(|id| cluster.restart(*id)) }.boxed(),
    }
}
