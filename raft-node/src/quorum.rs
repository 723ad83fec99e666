//! Majorities of voters: a question that elections, reads and changes of the membership all ask.

use std::collections::BTreeSet;

/// Whether more than half of these voters say yes.
pub fn has_quorum(voters: &BTreeSet<u64>, says_yes: impl Fn(u64) -> bool) -> bool {
    voters.iter().filter(|id| says_yes(**id)).count() > voters.len() / 2
}

/// The same of each set: during a change of the membership there are two, and both decide (Raft paper, section 6).
/// Without any set nobody does.
pub fn each_has_quorum(configs: &[BTreeSet<u64>], says_yes: impl Fn(u64) -> bool) -> bool {
    !configs.is_empty() && configs.iter().all(|voters| has_quorum(voters, &says_yes))
}
