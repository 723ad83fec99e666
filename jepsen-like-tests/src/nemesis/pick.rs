//! Whom a fault hits.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::book::{Claim, Ends};
use crate::cluster::Cluster;

/// How often one more node is broken although a minority is already.
const BEYOND_A_MINORITY: f64 = 0.25;

/// A node that is hit, and how that is told.
#[derive(Debug, Clone)]
pub(super) struct Victim {
    pub(super) id: u64,
    pub(super) what: String,
}

/// Nodes that are hit, and how that is told.
#[derive(Debug, Clone)]
pub(super) struct Victims {
    pub(super) ids: Vec<u64>,
    pub(super) what: String,
}

/// Of the nodes that are free, the leader, a follower, any one, or a minority. None: none of those is free.
pub(super) async fn some(cluster: &Cluster, free: &[u64], dice: &mut ChaCha8Rng) -> Option<Victims> {
    let leader = cluster.leader_now().await;
    let pick = dice.random_range(0..4);
    let minority = (cluster.ids().len().saturating_sub(1)) / 2;
    let ids: Vec<u64> = match pick {
        0 => leader.into_iter().filter(|id| free.contains(id)).collect(),
        1 => {
            let followers: Vec<u64> = free.iter().copied().filter(|id| Some(*id) != leader).collect();
            followers.choose(dice).copied().into_iter().collect()
        }
        2 => free.choose(dice).copied().into_iter().collect(),
        _ => {
            let mut free = free.to_vec();
            free.shuffle(dice);
            free.truncate(minority);
            free
        }
    };
    (!ids.is_empty()).then(|| Victims {
        what: told(&ids, leader),
        ids,
    })
}

/// Any one of the nodes that are free.
pub(super) async fn one(cluster: &Cluster, free: &[u64], dice: &mut ChaCha8Rng) -> Option<Victim> {
    let leader = cluster.leader_now().await;
    // The leader as often as any follower at all: more depends on it.
    let id = match leader.filter(|id| free.contains(id) && dice.random_bool(0.5)) {
        Some(leader) => leader,
        None => *free.choose(dice)?,
    };
    Some(Victim {
        what: told(&[id], leader),
        id,
    })
}

/// As [`some`], of the nodes at which nobody is at work; from now on somebody is.
pub(super) async fn claim_some(cluster: &Arc<Cluster>, dice: &mut ChaCha8Rng, ends: Ends) -> Option<(Victims, Claim)> {
    let victims = some(cluster, &free(cluster, dice), dice).await?;
    let claim = cluster.book.claim(&victims.ids, ends)?;
    Some((victims, claim))
}

/// As [`claim_some`], but of a single node.
pub(super) async fn claim_one(cluster: &Arc<Cluster>, dice: &mut ChaCha8Rng, ends: Ends) -> Option<(Victim, Claim)> {
    let victim = one(cluster, &free(cluster, dice), dice).await?;
    let claim = cluster.book.claim(&[victim.id], ends)?;
    Some((victim, claim))
}

/// All nodes, which `all` names, or as [`some`] any of them.
pub(super) async fn all_or_some(cluster: &Cluster, dice: &mut ChaCha8Rng, all: &str) -> Victims {
    let ids = cluster.ids();
    let some = match dice.random_bool(0.5) {
        true => None,
        false => some(cluster, &ids, dice).await,
    };
    some.unwrap_or(Victims {
        what: all.to_owned(),
        ids,
    })
}

/// `node 2, which leads, and node 3`.
pub(super) fn told(ids: &[u64], leader: Option<u64>) -> String {
    let words: Vec<String> = ids
        .iter()
        .map(|id| match Some(*id) == leader {
            true => format!("node {id}, which leads"),
            false => format!("node {id}"),
        })
        .collect();
    words.join(" and ")
}

/// At random, in milliseconds.
pub(super) fn between(dice: &mut ChaCha8Rng, least_ms: u64, most_ms: u64) -> Duration {
    Duration::from_millis(dice.random_range(least_ms..=most_ms))
}

/// The nodes at whose process and disk nobody is at work and that run. Mostly none while a minority is broken
/// already: a cluster that seldom has a majority does little that could go wrong.
pub(super) fn free(cluster: &Arc<Cluster>, dice: &mut ChaCha8Rng) -> Vec<u64> {
    let all = cluster.ids();
    let minority = (all.len().saturating_sub(1)) / 2;
    let mut free = cluster.book.unclaimed(all.clone());
    let broken = all.len() - free.len();
    if broken >= minority && !dice.random_bool(BEYOND_A_MINORITY) {
        return Vec::new();
    }
    free.retain(|id| cluster.node(*id).process().runs());
    free
}
