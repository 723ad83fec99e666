use std::collections::BTreeSet;

use quorate_storage::log::Vote;

use super::{Invariant, Seen, has_majority};

/// At most one leader can be elected in a term, because a leader has the votes of a majority, on their disks, and
/// two majorities share a server that votes once.
///
/// openraft numbers leaderships by term and leader together, so that "a term" is such a pair and a server may go
/// on from one to a greater one. What can be seen of the election of a leader: a majority keeps its vote on disk,
/// or a greater one that came later.
#[derive(Default)]
pub(super) struct ElectionSafety {
    /// Leaders by term and id that were looked at.
    elected: BTreeSet<(u64, u64)>,
}

impl Invariant for ElectionSafety {
    fn name(&self) -> &'static str {
        "election safety (§5.2)"
    }

    fn check(&mut self, nodes: &[Seen]) -> Result<(), String> {
        for leader in nodes {
            let Some(term) = leader.leads else { continue };
            if !self.elected.insert((term, leader.id)) {
                continue;
            }
            let voted = |vote: Option<Vote>| vote.is_some_and(|vote| (vote.term, vote.leader) >= (term, leader.id));
            let voters = nodes.iter().filter(|node| voted(node.durable.vote));
            let voters: BTreeSet<u64> = voters.map(|node| node.id).collect();
            if !leader.configs.iter().any(|config| has_majority(config, &voters)) {
                return Err(format!(
                    "node {} leads term {term}, but only {voters:?} of {:?} have that vote on disk",
                    leader.id, leader.configs
                ));
            }
        }
        Ok(())
    }
}
