//! Whether enough nodes have lost their leader, and which of them is to lead. Plain functions of what they said.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use quorate_storage::log::LogId;

use crate::quorum::each_has_quorum;

/// Who is to campaign, where the keys of `lost` are the nodes that have lost the leader of one and the same vote,
/// with the ends of their logs; `configs` are the voters, two sets during a change of the membership.
///
/// None: too few have lost it. As many as could elect another must have (a majority of each set), so that a living
/// leader which a few have lost is left alone. The candidate has the most complete log of them (Raft, section
/// 5.4.1), so that all of them can vote for it; of equal ones the smallest id, so that all of them choose the same.
pub(super) fn candidate(configs: &[BTreeSet<u64>], lost: &BTreeMap<u64, Option<LogId>>) -> Option<u64> {
    if !each_has_quorum(configs, |id| lost.contains_key(&id)) {
        return None;
    }
    let is_voter = |id: &u64| configs.iter().any(|voters| voters.contains(id));
    lost.iter()
        .filter(|(id, _)| is_voter(id))
        .max_by_key(|(id, last)| (**last, Reverse(**id)))
        .map(|(id, _)| *id)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(term: u64, index: u64) -> Option<LogId> {
        Some(LogId { term, leader: 1, index })
    }

    fn lost<const N: usize>(nodes: [(u64, Option<LogId>); N]) -> BTreeMap<u64, Option<LogId>> {
        nodes.into()
    }

    fn three() -> Vec<BTreeSet<u64>> {
        vec![[1, 2, 3].into()]
    }

    #[test]
    fn a_majority_has_to_have_lost_it() {
        assert_eq!(candidate(&three(), &lost([])), None);
        assert_eq!(candidate(&three(), &lost([(2, at(1, 9))])), None);
        assert_eq!(candidate(&three(), &lost([(2, at(1, 9)), (3, at(1, 9))])), Some(2));
        let five = [[1, 2, 3, 4, 5].into()];
        assert_eq!(candidate(&five, &lost([(2, None), (3, None)])), None);
        assert_eq!(candidate(&five, &lost([(2, None), (3, None), (5, None)])), Some(2));
        let four = [[1, 2, 3, 4].into()];
        assert_eq!(
            candidate(&four, &lost([(2, None), (3, None)])),
            None,
            "half is no majority"
        );
        assert_eq!(candidate(&[[1, 2].into()], &lost([(2, None)])), None);
        assert_eq!(candidate(&[], &lost([(2, None)])), None);
    }

    #[test]
    fn the_more_complete_log_leads_and_of_equal_ones_the_smaller_id() {
        let of = |two, three_| candidate(&three(), &lost([(2, two), (3, three_)]));
        assert_eq!(of(at(2, 5), at(2, 6)), Some(3));
        assert_eq!(of(at(2, 6), at(2, 5)), Some(2));
        assert_eq!(of(at(2, 6), at(3, 1)), Some(3), "the term counts before the index");
        assert_eq!(of(at(2, 6), at(2, 6)), Some(2));
        assert_eq!(of(None, at(1, 0)), Some(3));
    }

    #[test]
    fn a_learner_neither_counts_nor_leads() {
        assert_eq!(candidate(&three(), &lost([(2, at(1, 1)), (9, at(1, 9))])), None);
        let nodes = lost([(2, at(1, 1)), (3, at(1, 1)), (9, at(1, 9))]);
        assert_eq!(candidate(&three(), &nodes), Some(2));
    }

    #[test]
    fn of_two_sets_of_voters_each_needs_its_majority() {
        let joint = [[1, 2, 3].into(), [1, 4, 5].into()];
        assert_eq!(candidate(&joint, &lost([(2, None), (3, None)])), None);
        assert_eq!(candidate(&joint, &lost([(2, None), (3, None), (4, None)])), None);
        let both = lost([(2, at(1, 1)), (3, at(1, 1)), (4, at(1, 2)), (5, at(1, 1))]);
        assert_eq!(candidate(&joint, &both), Some(4));
    }

    proptest! {
        /// Whoever is chosen can be elected by those who have lost the leader: a majority of each set, none of whom
        /// has a longer log.
        #[test]
        fn the_candidate_can_win(
            configs in prop::collection::vec(prop::collection::btree_set(1u64..7, 1..6), 1..3),
            lost in prop::collection::btree_map(1u64..9, prop::option::of((1u64..3, 0u64..4)), 0..8),
        ) {
            let lost: BTreeMap<u64, Option<LogId>> = lost
                .into_iter()
                .map(|(id, last)| (id, last.and_then(|(term, index)| at(term, index))))
                .collect();
            let voters: BTreeSet<u64> = configs.iter().flatten().copied().collect();
            match candidate(&configs, &lost) {
                Some(id) => {
                    prop_assert!(voters.contains(&id));
                    for config in &configs {
                        let votes = config
                            .iter()
                            .filter(|voter| lost.get(voter).is_some_and(|last| *last <= lost[&id]))
                            .count();
                        prop_assert!(2 * votes > config.len());
                    }
                }
                None => {
                    let lost_in = |config: &BTreeSet<u64>| config.iter().filter(|id| lost.contains_key(id)).count();
                    let too_few = configs.iter().any(|config| 2 * lost_in(config) <= config.len());
                    prop_assert!(too_few);
                }
            }
        }
    }
}
