//! Packets that get lost on their way to a node: some of all, or all of its clients'.

use std::sync::Arc;

use anyhow::Result;
use futures::FutureExt;
use futures::future::BoxFuture;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{Begun, Fault, pick};
use crate::cluster::Cluster;

pub(super) struct PacketLoss;

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

    fn begin<'a>(
        &'a self,
        cluster: &'a Arc<Cluster>,
        dice: &'a mut ChaCha8Rng,
    ) -> BoxFuture<'a, Result<Option<Begun>>> {
        async move {
            let ids = cluster.ids();
            let victims = match dice.random_bool(0.5) {
                true => None,
                false => pick::some(cluster, &ids, dice).await,
            };
            let (what, nodes) = victims.map_or(("all nodes".to_owned(), ids), |victims| (victims.what, victims.ids));
            let percent = dice.random_range(5..=40);
            let share = f64::from(percent) / 100.0;
            for id in &nodes {
                cluster.lose_packets(*id, share)?;
            }
            let (cluster, ids) = (cluster.clone(), nodes.clone());
            Ok(Some(Begun {
                what: format!("{percent} % of those to {what}"),
                nodes,
                lasts: pick::between(dice, 1000, 5000),
                heal: async move { ids.iter().try_for_each(|id| cluster.keep_packets(*id, share)) }.boxed(),
            }))
        }
        .boxed()
    }
}

pub(super) struct LeaderFromClients;

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

    fn begin<'a>(
        &'a self,
        cluster: &'a Arc<Cluster>,
        dice: &'a mut ChaCha8Rng,
    ) -> BoxFuture<'a, Result<Option<Begun>>> {
        async move {
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
        .boxed()
    }
}
