//! Packets that get lost on their way to a node: some of all, or all of its clients'.

use std::sync::Arc;

use anyhow::Result;
use async_trait::async_trait;
use futures::FutureExt;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{Begun, Fault, pick};
use crate::cluster::Cluster;

pub(super) struct PacketLoss;

#[async_trait]
impl Fault for PacketLoss {
    fn kind(&self) -> &'static str {
        "packet-loss"
    }

    fn about(&self) -> &'static str {
        "of the packets to all nodes, or to some, 5 to 40 % get lost"
    }

    fn permitted(&self, cluster: &Cluster) -> Result<(), String> {
        cluster.is_isolated()
    }

    async fn begin(&self, cluster: &Arc<Cluster>, dice: &mut ChaCha8Rng) -> Result<Option<Begun>> {
        let victims = pick::all_or_some(cluster, dice, "all nodes").await;
        let percent = dice.random_range(5..=40);
        let share = f64::from(percent) / 100.0;
        for id in &victims.ids {
            cluster.lose_packets(*id, share)?;
        }
        let (cluster, ids) = (cluster.clone(), victims.ids.clone());
        Ok(Some(Begun {
            what: format!("{percent} % of those to {}", victims.what),
            nodes: victims.ids,
            lasts: pick::between(dice, 1000, 5000),
            heal: async move { ids.iter().try_for_each(|id| cluster.keep_packets(*id, share)) }.boxed(),
        }))
    }
}

pub(super) struct LeaderFromClients;

#[async_trait]
impl Fault for LeaderFromClients {
    fn kind(&self) -> &'static str {
        "leader-from-clients"
    }

    fn about(&self) -> &'static str {
        "the leader hears its peers, but no client"
    }

    fn permitted(&self, cluster: &Cluster) -> Result<(), String> {
        cluster.is_isolated()
    }

    async fn begin(&self, cluster: &Arc<Cluster>, dice: &mut ChaCha8Rng) -> Result<Option<Begun>> {
        let Some(leader) = cluster.leader_now().await else {
            return Ok(None);
        };
        cluster.cut_clients(leader)?;
        let cluster = cluster.clone();
        Ok(Some(Begun {
            what: format!("node {leader}, which leads"),
            nodes: vec![leader],
            lasts: pick::between(dice, 1000, 4000),
            heal: async move { cluster.mend_clients(leader) }.boxed(),
        }))
    }
}
