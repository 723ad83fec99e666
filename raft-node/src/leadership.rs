//! Who leads, how fresh that knowledge is, and handing leadership over.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::Instant as _;
use openraft::async_runtime::WatchReceiver;
use quorate_storage::log;
use quorate_storage::state::StateStore;
use tokio::time::Instant;

use crate::node::NodeCore;
use crate::peers::admin::AdminRefusal;
use crate::types::{Vote, to_stored_vote};

/// The one who takes over has all entries after one round trip, then needs an election of another.
const TAKE_OVER_WITHIN: Duration = Duration::from_secs(2);

/// When this node last heard from a leader, or as a leader from a majority.
#[derive(Debug)]
pub struct LeaderContact {
    start: Instant,
    /// Milliseconds after `start`; 0: never.
    heard_ms: AtomicU64,
    /// Silence for longer than this means that the leader may be gone.
    lease: Duration,
}

impl LeaderContact {
    pub fn new(election_timeout_max_ms: u64) -> Self {
        Self {
            start: Instant::now(),
            heard_ms: AtomicU64::new(0),
            lease: Duration::from_millis(2 * election_timeout_max_ms),
        }
    }

    pub fn lease(&self) -> Duration {
        self.lease
    }

    fn heard(&self) {
        let now_ms = u64::try_from(self.start.elapsed().as_millis())
            .unwrap_or(u64::MAX)
            .max(1);
        self.heard_ms.fetch_max(now_ms, Ordering::Relaxed);
    }

    fn is_fresh(&self) -> bool {
        match self.heard_ms.load(Ordering::Relaxed) {
            0 => false,
            heard_ms => self.start.elapsed().saturating_sub(Duration::from_millis(heard_ms)) <= self.lease,
        }
    }
}

impl<S: StateStore> NodeCore<S> {
    /// Called for each heartbeat of a leader that a majority has lately answered.
    pub fn heard_from_leader(&self, vote: &Vote) {
        // A deposed leader's stragglers are no sign of the one that was elected after it.
        if vote.committed && *vote >= self.server.borrow_watched().vote {
            self.contact.heard();
        }
    }

    /// The leader that openraft knows, however long ago it was heard from.
    pub(crate) fn leader_hint(&self) -> Option<u64> {
        self.server.borrow_watched().current_leader
    }

    /// For whom this node has voted last, or who leads.
    pub(crate) fn vote(&self) -> log::Vote {
        to_stored_vote(self.server.borrow_watched().vote)
    }

    /// The greatest term that this node knows.
    pub(crate) fn term(&self) -> u64 {
        // In a function of its own, so that the borrow ends with it: a second borrow beside it, while the core
        // waits to write, would block both for ever.
        self.server.borrow_watched().vote.leader_id.term
    }

    pub(crate) fn leads(&self) -> bool {
        self.leader_hint() == Some(self.book.id)
    }

    /// The leader, if it was heard from within its lease and is not known to be dead.
    pub fn live_leader(&self) -> Option<u64> {
        let leader = self.leader_hint()?;
        if self.failover.is_lost(self.vote()) {
            return None;
        }
        let live = if leader == self.book.id {
            self.holds_lease()
        } else {
            self.contact.is_fresh()
        };
        live.then_some(leader)
    }

    /// Whether this node, if it leads, was lately answered by a majority.
    pub fn holds_lease(&self) -> bool {
        let membership = self.server.borrow_watched().membership_config.clone();
        // Not through `voter_ids`, which builds a set: this is asked for each answer's headers.
        let mut voters = membership.membership().get_joint_config().iter().flatten().peekable();
        if voters.peek().is_some() && voters.all(|voter| *voter == self.book.id) {
            // The only voter is its own majority.
            return true;
        }
        let acked = self.data.borrow_watched().last_quorum_acked;
        acked.is_some_and(|acked| acked.elapsed() <= self.contact.lease)
    }

    /// Hands leadership over before this node goes down. Does nothing where it does not lead.
    pub async fn hand_over(&self) {
        match self.transfer_here(None).await {
            Ok(leader) => tracing::info!(leader, "leadership was handed over"),
            Err(AdminRefusal::NotLeader) => {}
            Err(refusal) => tracing::warn!(?refusal, "leadership was not handed over"),
        }
    }

    /// Hands leadership to a voter (none: to the one whose log is furthest), and waits until it leads.
    pub(crate) async fn transfer_here(&self, to: Option<u64>) -> Result<u64, AdminRefusal> {
        if !self.leads() {
            return Err(AdminRefusal::NotLeader);
        }
        let to = match to {
            Some(to) if to == self.book.id => return Ok(to),
            Some(to) => to,
            None => self
                .furthest_voter()
                .ok_or_else(|| AdminRefusal::Conflict("there is no other voter".to_owned()))?,
        };
        let is_voter = self.raft.voter_ids().any(|id| id == to);
        if !is_voter {
            return Err(AdminRefusal::Invalid(format!(
                "node {to} is not a voter of this cluster"
            )));
        }
        tracing::info!(to, "handing leadership over");
        if let Err(error) = self.raft.trigger().transfer_leader(to).await {
            return Err(AdminRefusal::Unknown(error.to_string()));
        }
        let mut leadership = self.raft.server_metrics();
        let taken_over = async {
            loop {
                let leader = leadership.borrow_and_update().current_leader;
                if let Some(leader) = leader.filter(|leader| *leader != self.book.id) {
                    return leader;
                }
                if leadership.changed().await.is_err() {
                    // The core has stopped; the process is about to end.
                    std::future::pending::<()>().await;
                }
            }
        };
        match tokio::time::timeout(TAKE_OVER_WITHIN, taken_over).await {
            Ok(leader) if leader == to => Ok(leader),
            Ok(leader) => Err(AdminRefusal::Conflict(format!(
                "node {leader} was elected while leadership was handed to node {to}"
            ))),
            Err(_) => Err(AdminRefusal::Conflict(format!(
                "node {to} has not taken leadership over in time"
            ))),
        }
    }

    /// The voter to lead next: one that answers, with the longest log.
    fn furthest_voter(&self) -> Option<u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let voters: Vec<u64> = metrics.membership_config.voter_ids().collect();
        let replication = metrics.replication.iter().flatten();
        // One that fell silent may have the whole log and yet be dead.
        let heard = |id: &u64| {
            let answered = metrics
                .heartbeat
                .as_ref()
                .and_then(|heartbeat| heartbeat.get(id).copied().flatten());
            answered.is_some_and(|at| at.elapsed() <= self.contact.lease / 2)
        };
        replication
            .filter(|(id, _)| **id != self.book.id && voters.contains(id))
            .max_by_key(|(id, matched)| (heard(id), matched.map(|log_id| log_id.index), std::cmp::Reverse(**id)))
            .map(|(id, _)| *id)
    }
}
