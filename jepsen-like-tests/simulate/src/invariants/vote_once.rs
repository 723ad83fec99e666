use std::collections::BTreeMap;

use quorate_storage::log::Vote;

use super::{Invariant, Seen};

/// A server votes for at most one candidate in a term, and its term never goes back, whatever crashes: both are
/// on its disk before it answers. A term is openraft's pair of term and leader (see `election_safety`).
///
/// A vote that is not synced yet was told to nobody, so that only what was durable counts here; whether a vote was
/// told too early is for `election_safety`.
#[derive(Default)]
pub(super) struct VoteOnce {
    votes: BTreeMap<u64, Vote>,
}

impl Invariant for VoteOnce {
    fn name(&self) -> &'static str {
        "one vote a term (§5.2)"
    }

    fn check(&mut self, nodes: &[Seen]) -> Result<(), String> {
        for node in nodes {
            let Some(vote) = node.durable.vote else { continue };
            let before = self.votes.insert(node.id, vote);
            if let Some(before) = before
                && (vote.term, vote.leader) < (before.term, before.leader)
            {
                return Err(format!("node {} had voted {before:?} and now has {vote:?}", node.id));
            }
        }
        Ok(())
    }
}
