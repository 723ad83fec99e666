//! The plug is pulled: the process ends, and with it everything that was written and not synced.

use std::sync::Arc;

use anyhow::Result;
use async_trait::async_trait;
use rand_chacha::ChaCha8Rng;

use super::book::Ends;
use super::kill::ended;
use super::{Begun, Fault, pick};
use crate::cluster::Cluster;

pub(super) struct Power;

#[async_trait]
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

    async fn begin(&self, cluster: &Arc<Cluster>, dice: &mut ChaCha8Rng) -> Result<Option<Begun>> {
        match pick::one(cluster, &pick::free(cluster, dice), dice).await {
            Some(victim) => cut(cluster, dice, vec![victim.id], victim.what).await,
            None => Ok(None),
        }
    }
}

pub(super) struct PowerAll;

#[async_trait]
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

    async fn begin(&self, cluster: &Arc<Cluster>, dice: &mut ChaCha8Rng) -> Result<Option<Begun>> {
        cut(cluster, dice, cluster.ids(), "all nodes".to_owned()).await
    }
}

async fn cut(cluster: &Arc<Cluster>, dice: &mut ChaCha8Rng, ids: Vec<u64>, what: String) -> Result<Option<Begun>> {
    let Some(claim) = cluster.book.claim(&ids, Ends::AreMeant) else {
        return Ok(None);
    };
    cluster.cut_power(&ids).await?;
    Ok(Some(ended(cluster, what, claim, pick::between(dice, 100, 2000))))
}
