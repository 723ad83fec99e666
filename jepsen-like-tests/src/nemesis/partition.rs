//! Nodes that do not hear each other: packets between them are dropped, or wait, as TCP makes bytes wait.

use std::sync::Arc;

use anyhow::Result;
use async_trait::async_trait;
use futures::FutureExt;
use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::{Begun, Fault, pick};
use crate::cluster::Cluster;

/// Who does not hear whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// A minority and a majority.
    Halves,
    /// Each hears only the two beside it: of five everybody has a majority, and no two the same one.
    Ring,
    /// Two halves that only one node hears, which both of them hear.
    Bridge,
    /// Some are not heard by others, but hear them.
    OneWay,
    /// The leader alone.
    Leader,
}

pub(super) struct Partition(pub(super) Shape);

#[async_trait]
impl Fault for Partition {
    fn kind(&self) -> &'static str {
        match self.0 {
            Shape::Halves => "partition-halves",
            Shape::Ring => "partition-ring",
            Shape::Bridge => "partition-bridge",
            Shape::OneWay => "partition-one-way",
            Shape::Leader => "partition-leader",
        }
    }

    fn about(&self) -> &'static str {
        match self.0 {
            Shape::Halves => "a minority and a majority do not hear each other",
            Shape::Ring => "each node hears only its two neighbours",
            Shape::Bridge => "two halves hear each other only by way of one node",
            Shape::OneWay => "what some nodes send does not arrive, while they hear the others",
            Shape::Leader => "the leader is cut off from its peers, not from clients",
        }
    }

    fn permitted(&self, cluster: &Cluster) -> Result<(), String> {
        // Of three in a ring everybody hears everybody; a bridge between two halves of one node cuts one link.
        if self.0 == Shape::Ring && cluster.ids().len() < 4 {
            return Err("a ring of fewer than four nodes is whole".to_owned());
        }
        cluster.has_breakable_links()
    }

    async fn begin(&self, cluster: &Arc<Cluster>, dice: &mut ChaCha8Rng) -> Result<Option<Begun>> {
        let leader = cluster.leader_now().await;
        let mut ids = cluster.ids();
        ids.shuffle(dice);
        let Some(cuts) = cuts(self.0, &ids, leader, dice) else {
            return Ok(None);
        };
        for (from, to) in &cuts {
            cluster.cut_link(*from, *to)?;
        }
        let nodes: std::collections::BTreeSet<u64> = cuts.iter().flat_map(|(from, to)| [*from, *to]).collect();
        let cluster = cluster.clone();
        Ok(Some(Begun {
            what: told(self.0, &ids, leader, &cuts),
            nodes: nodes.into_iter().collect(),
            lasts: pick::between(dice, 1000, 5000),
            heal: async move { cuts.iter().try_for_each(|(from, to)| cluster.mend_link(*from, *to)) }.boxed(),
        }))
    }
}

/// From whom to whom nothing arrives, in a cluster of these nodes in their random order.
fn cuts(shape: Shape, ids: &[u64], leader: Option<u64>, dice: &mut ChaCha8Rng) -> Option<Vec<(u64, u64)>> {
    let both = |a: &[u64], b: &[u64]| -> Vec<(u64, u64)> {
        a.iter()
            .flat_map(|a| b.iter().flat_map(|b| [(*a, *b), (*b, *a)]))
            .collect()
    };
    let count = ids.len();
    let minority = (count.saturating_sub(1) / 2).max(1);
    let cuts = match shape {
        Shape::Halves => both(&ids[..minority], &ids[minority..]),
        Shape::Ring => {
            let far = |a: usize, b: usize| a.abs_diff(b) > 1 && a.abs_diff(b) < count - 1;
            let pairs = (0..count).flat_map(|a| (0..count).map(move |b| (a, b)));
            pairs
                .filter(|(a, b)| far(*a, *b))
                .map(|(a, b)| (ids[a], ids[b]))
                .collect()
        }
        Shape::Bridge => {
            let (_, halves) = ids.split_first()?;
            let (one, other) = halves.split_at(halves.len() / 2);
            both(one, other)
        }
        Shape::OneWay => {
            // As often a single node, the leader among them, as a minority.
            let deaf = match leader.filter(|_| dice.random_bool(0.3)) {
                Some(leader) => vec![leader],
                None => ids[..dice.random_range(1..=minority)].to_vec(),
            };
            let others: Vec<u64> = ids.iter().copied().filter(|id| !deaf.contains(id)).collect();
            let out = dice.random_bool(0.5);
            let pairs = deaf.iter().flat_map(|a| others.iter().map(move |b| (*a, *b)));
            pairs.map(|(a, b)| if out { (a, b) } else { (b, a) }).collect()
        }
        Shape::Leader => {
            let leader = leader?;
            let others: Vec<u64> = ids.iter().copied().filter(|id| *id != leader).collect();
            both(&[leader], &others)
        }
    };
    (!cuts.is_empty()).then_some(cuts)
}

fn told(shape: Shape, ids: &[u64], leader: Option<u64>, cuts: &[(u64, u64)]) -> String {
    match shape {
        Shape::Halves => {
            let minority = (ids.len().saturating_sub(1) / 2).max(1);
            let (few, many) = ids.split_at(minority);
            format!("{few:?} from {many:?}")
        }
        Shape::Ring => format!("the ring {ids:?}"),
        Shape::Bridge => format!("node {} hears all, {:?} and the rest do not hear each other", ids[0], {
            let halves = &ids[1..];
            &halves[..halves.len() / 2]
        }),
        Shape::OneWay => {
            let pairs: Vec<String> = cuts.iter().map(|(from, to)| format!("{from}→{to}")).collect();
            pairs.join(" ")
        }
        Shape::Leader => pick::told(&leader.into_iter().collect::<Vec<_>>(), leader),
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn of(shape: Shape, ids: &[u64]) -> Vec<(u64, u64)> {
        let mut dice = ChaCha8Rng::seed_from_u64(1);
        cuts(shape, ids, Some(3), &mut dice).expect("there are enough nodes")
    }

    #[test]
    fn in_a_ring_everybody_hears_two() {
        let cuts = of(Shape::Ring, &[1, 2, 3, 4, 5]);
        for id in 1..=5 {
            assert_eq!(cuts.iter().filter(|(_, to)| *to == id).count(), 2, "{cuts:?}");
        }
        assert!(!cuts.contains(&(5, 1)) && cuts.contains(&(4, 1)));
    }

    #[test]
    fn over_a_bridge_only_one_hears_everybody() {
        let cuts = of(Shape::Bridge, &[1, 2, 3, 4, 5]);
        for id in 2..=5 {
            assert_eq!(cuts.iter().filter(|(_, to)| *to == id).count(), 2, "{cuts:?}");
        }
        assert!(!cuts.iter().any(|(from, to)| *from == 1 || *to == 1));
    }

    #[test]
    fn halves_and_the_leader_are_cut_both_ways_and_one_way_is_not() {
        assert_eq!(of(Shape::Halves, &[1, 2, 3]).len(), 4);
        let leader = of(Shape::Leader, &[1, 2, 3]);
        assert!(leader.contains(&(3, 1)) && leader.contains(&(1, 3)) && leader.len() == 4);
        let one_way = of(Shape::OneWay, &[1, 2, 3, 4, 5]);
        assert!(
            !one_way.iter().any(|(from, to)| one_way.contains(&(*to, *from))),
            "{one_way:?}"
        );
    }
}
