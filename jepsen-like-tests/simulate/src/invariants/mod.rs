//! Raft's invariants, looked at after every step of a simulation: one property a file, with its section in the
//! paper ("In Search of an Understandable Consensus Algorithm", extended version).

mod durable_majority;
mod election_safety;
mod leader_append_only;
mod leader_completeness;
mod log_matching;
mod same_states;
mod state_machine_safety;
mod vote_once;

use std::collections::{BTreeMap, BTreeSet};

use openraft::async_runtime::WatchReceiver;
use quorate_storage::log::{LogId, LogState, LogStore};
use quorate_storage::state::{MemoryState, StateStore};

use crate::disk::Disk;
use crate::node::Node;

/// What is seen of one node, running or not.
pub(crate) struct Seen {
    pub(crate) id: u64,
    /// The term in which it says that it leads.
    pub(crate) leads: Option<u64>,
    pub(crate) log: LogState,
    pub(crate) durable: LogState,
    pub(crate) applied: Option<LogId>,
    /// Majorities that it may go by: each a joint configuration, that is one set of voters or two.
    pub(crate) configs: Vec<Vec<BTreeSet<u64>>>,
    pub(crate) disk: Disk,
    /// Entries of its log by index, as far as they were there at some step and are not purged.
    pub(crate) ids: BTreeMap<u64, LogId>,
    /// What went from the log's end since the last step.
    pub(crate) truncated: Vec<LogId>,
    /// It was not running, or another process was, at the last step.
    pub(crate) is_new: bool,
}

impl Seen {
    /// Whether a crash of this node now would leave the entry, or what it has become.
    pub(crate) fn keeps(&self, id: LogId) -> bool {
        let covered = |upto: Option<LogId>| upto.is_some_and(|upto| upto.index >= id.index);
        self.disk.log.durable_id(id.index) == Some(id)
            || covered(self.durable.purged)
            || covered(self.disk.state.installed())
    }

    pub(crate) fn state(&self) -> &MemoryState {
        &self.disk.state
    }
}

/// A property that must hold after every step.
pub(crate) trait Invariant {
    /// With the section of the paper.
    fn name(&self) -> &'static str;
    fn check(&mut self, nodes: &[Seen]) -> Result<(), String>;
}

fn all() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::<election_safety::ElectionSafety>::default(),
        Box::<vote_once::VoteOnce>::default(),
        Box::<leader_append_only::LeaderAppendOnly>::default(),
        Box::<log_matching::LogMatching>::default(),
        Box::<leader_completeness::LeaderCompleteness>::default(),
        Box::<state_machine_safety::StateMachineSafety>::default(),
        Box::<durable_majority::DurableMajority>::default(),
        Box::<same_states::SameStates>::default(),
    ]
}

/// Of each half of a joint configuration.
fn has_majority(config: &[BTreeSet<u64>], nodes: &BTreeSet<u64>) -> bool {
    config
        .iter()
        .all(|voters| 2 * voters.intersection(nodes).count() > voters.len())
}

/// Looks at all nodes after every step.
pub(crate) struct Watch {
    invariants: Vec<Box<dyn Invariant>>,
    seen: BTreeMap<u64, Seen>,
    runs: BTreeMap<u64, u64>,
}

impl Watch {
    pub(crate) fn new() -> Self {
        Self {
            invariants: all(),
            seen: BTreeMap::new(),
            runs: BTreeMap::new(),
        }
    }

    /// The first property that does not hold.
    pub(crate) fn look<'a>(&mut self, nodes: impl Iterator<Item = &'a Node>) -> Result<&BTreeMap<u64, Seen>, String> {
        let mut now = Vec::new();
        for node in nodes {
            let before = self.seen.remove(&node.id);
            let is_new = self.runs.insert(node.id, node.run_number()) != Some(node.run_number());
            now.push(see(node, before, is_new));
        }
        for invariant in &mut self.invariants {
            invariant
                .check(&now)
                .map_err(|what| format!("{}: {what}", invariant.name()))?;
        }
        self.seen = now.into_iter().map(|seen| (seen.id, seen)).collect();
        Ok(&self.seen)
    }
}

fn see(node: &Node, before: Option<Seen>, is_new: bool) -> Seen {
    let disk = node.disk();
    let log = disk.log.state();
    let mut ids = before.map(|before| before.ids).unwrap_or_default();
    let truncated = follow(&mut ids, &disk, &log);
    let core = node.core();
    let (leads, configs) = match &core {
        Some(core) => {
            let metrics = core.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            let config = |of: &raft_node::types::StoredMembership| of.membership().get_joint_config().clone();
            (
                metrics.state.is_leader().then_some(metrics.vote.leader_id.term),
                vec![
                    config(&metrics.membership_config),
                    config(&metrics.committed_membership_config),
                ],
            )
        }
        None => (None, Vec::new()),
    };
    Seen {
        id: node.id,
        leads,
        durable: disk.log.durable_state(),
        log,
        applied: core.and_then(|core| core.applied.borrow().log_id),
        configs,
        disk,
        ids,
        truncated,
        is_new,
    }
}

/// Brings what is known of a log's entries up to date; answers what went from its end.
fn follow(ids: &mut BTreeMap<u64, LogId>, disk: &Disk, log: &LogState) -> Vec<LogId> {
    if let Some(purged) = log.purged {
        *ids = ids.split_off(&(purged.index + 1));
    }
    let mut gone = Vec::new();
    while let Some((&index, &id)) = ids.last_key_value() {
        if disk.log.id(index) == Some(id) {
            break;
        }
        ids.pop_last();
        gone.push(id);
    }
    let next = match (ids.last_key_value(), log.purged) {
        (Some((index, _)), _) => index + 1,
        (None, Some(purged)) => purged.index + 1,
        (None, None) => 0,
    };
    let end = log.last.map_or(0, |last| last.index + 1);
    ids.extend((next..end).filter_map(|index| Some((index, disk.log.id(index)?))));
    gone
}

#[cfg(test)]
mod tests {
    use quorate_state_machine::Change;
    use quorate_storage::log::{Record, Vote};
    use quorate_storage::state::Applied;

    use super::*;

    const VOTERS: [u64; 3] = [1, 2, 3];

    fn id(term: u64, index: u64) -> LogId {
        LogId { term, leader: 1, index }
    }

    /// A node of three with this log, all of it synced.
    fn seen(node: u64, ids: &[LogId]) -> Seen {
        let disk = Disk::empty();
        let records = ids.iter().map(|id| Record {
            id: *id,
            payload: bytes::Bytes::new(),
        });
        disk.log.append(records.collect(), Box::new(|_| {}));
        disk.log.flush();
        let log = disk.log.state();
        Seen {
            id: node,
            leads: None,
            durable: log,
            log,
            applied: None,
            configs: vec![vec![VOTERS.into()]],
            disk,
            ids: ids.iter().map(|id| (id.index, *id)).collect(),
            truncated: Vec::new(),
            is_new: false,
        }
    }

    fn voted(mut seen: Seen, term: u64, leader: u64) -> Seen {
        seen.durable.vote = Some(Vote {
            term,
            leader,
            committed: false,
        });
        seen
    }

    fn leads(mut seen: Seen, term: u64) -> Seen {
        seen.leads = Some(term);
        seen
    }

    fn applied(mut seen: Seen, id: LogId) -> Seen {
        seen.applied = Some(id);
        seen
    }

    fn refused(checked: Result<(), String>) -> bool {
        checked.is_err()
    }

    #[test]
    fn a_leader_without_the_votes_of_a_majority_is_found() {
        let alone = [
            leads(voted(seen(1, &[]), 2, 1), 2),
            voted(seen(2, &[]), 1, 2),
            seen(3, &[]),
        ];
        assert!(refused(election_safety::ElectionSafety::default().check(&alone)));
        // One of its voters has gone on to a later candidate.
        let elected = [
            leads(voted(seen(1, &[]), 2, 1), 2),
            voted(seen(2, &[]), 3, 3),
            seen(3, &[]),
        ];
        assert!(!refused(election_safety::ElectionSafety::default().check(&elected)));
    }

    #[test]
    fn a_vote_that_goes_back_is_found() {
        let mut invariant = vote_once::VoteOnce::default();
        assert!(!refused(invariant.check(&[voted(seen(1, &[]), 2, 1)])));
        assert!(!refused(invariant.check(&[voted(seen(1, &[]), 2, 3)])));
        assert!(refused(invariant.check(&[voted(seen(1, &[]), 2, 1)])));
    }

    #[test]
    fn a_leader_that_drops_an_entry_is_found() {
        let dropped = || Seen {
            truncated: vec![id(1, 5)],
            ..leads(seen(1, &[]), 2)
        };
        let mut invariant = leader_append_only::LeaderAppendOnly::default();
        assert!(!refused(invariant.check(&[dropped()])), "it did so before it led");
        assert!(refused(invariant.check(&[dropped()])));
    }

    #[test]
    fn logs_that_differ_below_a_common_entry_are_found() {
        let mut invariant = log_matching::LogMatching::default();
        let ends_alike = [seen(1, &[id(1, 0), id(3, 1)]), seen(2, &[id(2, 0), id(3, 1)])];
        assert!(refused(invariant.check(&ends_alike)));
        let ends_otherwise = [seen(1, &[id(1, 0), id(3, 1)]), seen(2, &[id(1, 0), id(2, 1)])];
        assert!(!refused(log_matching::LogMatching::default().check(&ends_otherwise)));
    }

    #[test]
    fn a_leader_without_a_committed_entry_is_found() {
        let mut invariant = leader_completeness::LeaderCompleteness::default();
        assert!(!refused(invariant.check(&[applied(seen(1, &[id(1, 0)]), id(1, 0))])));
        assert!(!refused(invariant.check(&[leads(seen(2, &[id(1, 0)]), 2)])));
        assert!(refused(invariant.check(&[leads(seen(3, &[id(2, 0)]), 3)])));
    }

    #[test]
    fn two_entries_applied_at_one_index_are_found() {
        let differ = [
            applied(seen(1, &[id(1, 0), id(1, 1)]), id(1, 1)),
            applied(seen(2, &[id(2, 0), id(1, 1)]), id(1, 1)),
        ];
        assert!(refused(
            state_machine_safety::StateMachineSafety::default().check(&differ)
        ));
    }

    #[test]
    fn an_entry_that_is_applied_and_not_on_a_majority_of_disks_is_found() {
        let entry = id(1, 0);
        let one_disk = [applied(seen(1, &[entry]), entry), seen(2, &[]), seen(3, &[])];
        assert!(refused(durable_majority::DurableMajority::default().check(&one_disk)));
        let two_disks = [applied(seen(1, &[entry]), entry), seen(2, &[entry]), seen(3, &[])];
        assert!(!refused(durable_majority::DurableMajority::default().check(&two_disks)));
    }

    #[test]
    fn states_that_differ_after_the_same_entries_are_found() {
        let entry = id(1, 0);
        let differ = [1, 2].map(|node| {
            let seen = applied(seen(node, &[entry]), entry);
            let put = Change::Put {
                key: vec![0, 0, 0, 1, 7],
                value: vec![u8::try_from(node).expect("it is small")],
            };
            seen.state()
                .write(vec![put], &Applied::default())
                .expect("memory can be written");
            seen
        });
        let mut invariant = same_states::SameStates::default();
        assert!((0..100).any(|_| refused(invariant.check(&differ))));
    }
}
