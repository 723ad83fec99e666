//! The plug is pulled: the process ends, and with it everything that was written and not synced.

use std::sync::Arc;

use anyhow::Result;
use futures::FutureExt;
use futures::future::BoxFuture;
use rand_chacha::ChaCha8Rng;

use super::book::Ends;
use super::kill::start_again;
use super::{Begun, Fault, pick};
use crate::cluster::Cluster;

pub(super) struct Power;

impl Fault for Power {
    fn kind(&self) -> &'static str {
        "power"
    }

    fn about(&self) -> &'static str {
        "power loss of a node: what it had not synced is gone"
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
            match pick::one(cluster, &pick::free(cluster, dice), dice).await {
                Some(victim) => cut(cluster, dice, victim.ids, victim.what).await,
                None => Ok(None),
            }
        }
        .boxed()
    }
}

pub(super) struct PowerAll;

impl Fault for PowerAll {
    fn kind(&self) -> &'static str {
        "power-all"
    }

    fn about(&self) -> &'static str {
        "power loss of all nodes at the same moment"
    }

    fn permitted(&self, cluster: &Cluster) -> Result<(), String> {
        cluster.is_isolated()
    }

    fn begin<'a>(
        &'a self,
        cluster: &'a Arc<Cluster>,
        dice: &'a mut ChaCha8Rng,
    ) -> BoxFuture<'a, Result<Option<Begun>>> {
        async move { cut(cluster, dice, cluster.ids(), "all nodes".to_owned()).await }.boxed()
    }
}

async fn cut(cluster: &Arc<Cluster>, dice: &mut ChaCha8Rng, ids: Vec<u64>, what: String) -> Result<Option<Begun>> {
    let Some(claim) = cluster.book.claim(&ids, Ends::AreMeant) else {
        return Ok(None);
    };
    cluster.cut_power(&ids).await?;
    Ok(Some(Begun {
        what,
        nodes: ids,
        lasts: pick::between(dice, 100, 2000),
        heal: start_again(cluster.clone(), claim).boxed(),
    }))
}
