//! One node, as the API and its peers ask it: what happens to a write and to a read.
//!
//! A write goes to the local proposer if this node leads, else once to the leader. It is tried again
//! only while it is certain that it was never proposed. A read waits until this node has applied what
//! the asked level demands, then answers from one snapshot of the local state.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, join_all};
use openraft::async_runtime::WatchReceiver;
use openraft::{Instant as _, ReadPolicy, ServerState};
use quorate_api::replica::{
    ClusterNode, ClusterStatus, Level, NodeStatus, RaftState, ReadOptions, Replica, ReplicaError, WriteOptions, Written,
};
use quorate_state_machine::query::Answered;
use quorate_state_machine::{Envelope, Outcome, Position, Query, RoomId, SpaceId, query};
use quorate_storage::log::LogId;
use quorate_storage::state::StateStore;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::peers::connection::CallError;
use crate::peers::frame::{Blob, ForwardError, NodeState, Reply, Request, StatusAnswer};
use crate::peers::{PeerBook, Pool, Purpose};
use crate::proposer::{ProposeError, Proposer};
use crate::read_index::{ReadIndex, ReadIndexError};
use crate::state_machine::{AppliedNow, Machine};
use crate::types::{TypeConfig, Vote, to_stored_log_id};
use crate::watchers::Watchers;

pub type Raft<S> = openraft::Raft<TypeConfig, Machine<S>>;

/// The replicated `cluster_version` that gates new commands. There is one so far.
pub const CLUSTER_VERSION: u32 = 1;

/// While there is no leader, or it cannot be reached, a request looks again this often.
const RETRY_AFTER: Duration = Duration::from_millis(10);
/// Kept from a forwarded write's time for the way back, so that the leader's answer comes first.
const FORWARD_MARGIN: Duration = Duration::from_millis(20);
/// How long `/v1/cluster` waits for a node before it calls it unreachable.
const STATUS_TIMEOUT: Duration = Duration::from_millis(500);
/// A node that is further behind what it knows to be committed is not ready.
const READY_LAG_ENTRIES: u64 = 1024;

pub struct NodeCore<S: StateStore> {
    pub book: Arc<PeerBook>,
    pub raft: Raft<S>,
    pub state: S,
    pub pool: Arc<Pool>,
    pub applied: watch::Receiver<AppliedNow>,
    pub watchers: Arc<Watchers>,
    pub proposer: Proposer,
    pub reads: ReadIndex,
    pub contact: LeaderContact,
    /// Cancelled when the node begins to go down.
    pub stopping: CancellationToken,
    /// Ends the process: the state is damaged.
    pub on_fatal: quorate_storage::FatalHook,
}

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
        if vote.committed && *vote >= self.raft.server_metrics().borrow_watched().vote {
            self.contact.heard();
        }
    }

    /// Neither log nor vote: this store has never been part of a cluster.
    pub fn is_empty(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.last_log_index.is_none() && metrics.vote.leader_id.term == 0
    }

    /// The leader that openraft knows, however long ago it was heard from.
    fn leader_hint(&self) -> Option<u64> {
        self.raft.server_metrics().borrow_watched().current_leader
    }

    /// The leader, if it was heard from within its lease.
    pub fn live_leader(&self) -> Option<u64> {
        let leader = self.leader_hint()?;
        let live = if leader == self.book.id {
            self.holds_lease()
        } else {
            self.contact.is_fresh()
        };
        live.then_some(leader)
    }

    /// Whether this node, if it leads, was lately answered by a majority.
    pub fn holds_lease(&self) -> bool {
        let membership = self.raft.server_metrics().borrow_watched().membership_config.clone();
        if membership.voter_ids().eq([self.book.id]) {
            // The only voter is its own majority.
            return true;
        }
        let metrics = self.raft.data_metrics();
        let acked = metrics.borrow_watched().last_quorum_acked;
        acked.is_some_and(|acked| acked.elapsed() <= self.contact.lease)
    }

    // ---- writes ----

    async fn write_command(&self, command: Bytes, options: WriteOptions) -> Result<Outcome, ReplicaError> {
        let deadline = Instant::from_std(options.deadline);
        let mut leadership = self.raft.server_metrics();
        loop {
            if self.stopping.is_cancelled() {
                return Err(ReplicaError::ShuttingDown);
            }
            drop(leadership.borrow_and_update());
            let leader = self.leader_hint();
            let attempt = match leader {
                Some(leader) if leader == self.book.id => self
                    .proposer
                    .propose(command.clone(), deadline)
                    .await
                    .map_err(|error| self.explain(error)),
                // Nobody is sent to a leader that has fallen silent.
                Some(leader) if options.redirect => {
                    match self
                        .book
                        .client_url(leader)
                        .filter(|_| self.live_leader() == Some(leader))
                    {
                        Some(client_url) => return Err(ReplicaError::Redirect { client_url }),
                        None => Err(Attempt::Again),
                    }
                }
                Some(leader) => self.forward(leader, command.clone(), deadline).await,
                None => Err(Attempt::Again),
            };
            match attempt {
                Ok(outcome) => return Ok(outcome),
                Err(Attempt::Final(error)) => return Err(error),
                Err(Attempt::Again) => {}
            }
            let pause = async {
                tokio::select! {
                    changed = leadership.changed() => if changed.is_err() {
                        // The core has stopped; the process is about to end.
                        std::future::pending::<()>().await;
                    },
                    () = tokio::time::sleep(RETRY_AFTER) => {}
                }
            };
            if tokio::time::timeout_at(deadline, pause).await.is_err() {
                return Err(ReplicaError::NoLeader);
            }
        }
    }

    fn explain(&self, error: ProposeError) -> Attempt {
        Attempt::Final(match error {
            ProposeError::NotLeader => return Attempt::Again,
            ProposeError::Overloaded => ReplicaError::Overloaded("too many writes wait at the leader".to_owned()),
            ProposeError::Expired => ReplicaError::NoLeader,
            ProposeError::Stopped => ReplicaError::ShuttingDown,
            ProposeError::Unknown(reason) => ReplicaError::CommitUnknown(reason),
        })
    }

    async fn forward(&self, leader: u64, command: Bytes, deadline: Instant) -> Result<Outcome, Attempt> {
        let within = deadline.saturating_duration_since(Instant::now());
        if within <= FORWARD_MARGIN {
            // No time is left for an answer. What is not sent has a known outcome.
            return Err(Attempt::Again);
        }
        let timeout_ms = u64::try_from(within.saturating_sub(FORWARD_MARGIN).as_millis()).unwrap_or(u64::MAX);
        let request = Request::Forward {
            command: Blob(command),
            timeout_ms,
        };
        let unknown = |reason: String| Err(Attempt::Final(ReplicaError::CommitUnknown(reason)));
        match self.pool.call(leader, Purpose::Forward, request, within).await {
            Ok(Reply::Forward(Ok(outcome))) => match Outcome::decode(&outcome.0) {
                Ok(outcome) => Ok(outcome),
                Err(error) => unknown(error.to_string()),
            },
            Ok(Reply::Forward(Err(error))) => Err(match error {
                // The hop guard: a node that does not lead says so and forwards no further.
                ForwardError::NotLeader | ForwardError::ShuttingDown => Attempt::Again,
                ForwardError::Expired => Attempt::Final(ReplicaError::NoLeader),
                ForwardError::Overloaded(reason) => Attempt::Final(ReplicaError::Overloaded(reason)),
                ForwardError::DiskFull => Attempt::Final(ReplicaError::DiskFull),
                ForwardError::Unknown(reason) => Attempt::Final(ReplicaError::CommitUnknown(reason)),
            }),
            Ok(other) => unknown(format!("unexpected reply {other:?}")),
            Err(CallError::NotSent(_) | CallError::Closed) => Err(Attempt::Again),
            Err(error) => unknown(format!("forwarded to node {leader}: {error}")),
        }
    }

    /// A write that another node forwarded: proposed here or refused, never sent on.
    pub async fn propose_forwarded(&self, command: Bytes, timeout_ms: u64) -> Result<Outcome, ForwardError> {
        if self.stopping.is_cancelled() {
            return Err(ForwardError::ShuttingDown);
        }
        if self.leader_hint() != Some(self.book.id) {
            return Err(ForwardError::NotLeader);
        }
        // The longest Request-Timeout-Ms of the contract.
        let deadline = Instant::now() + Duration::from_millis(timeout_ms.min(60_000));
        self.proposer
            .propose(command, deadline)
            .await
            .map_err(|error| match self.explain(error) {
                Attempt::Again => ForwardError::NotLeader,
                Attempt::Final(ReplicaError::NoLeader) => ForwardError::Expired,
                Attempt::Final(ReplicaError::Overloaded(reason)) => ForwardError::Overloaded(reason),
                Attempt::Final(ReplicaError::ShuttingDown) => ForwardError::ShuttingDown,
                Attempt::Final(other) => ForwardError::Unknown(other.to_string()),
            })
    }

    // ---- reads ----

    /// On the leader: confirms by a round of heartbeats that it leads.
    pub async fn local_read_index(&self) -> Result<LogId, String> {
        let (read, _) = self
            .raft
            .get_read_log_id(ReadPolicy::ReadIndex)
            .await
            .map_err(|error| error.to_string())?;
        Ok(to_stored_log_id(*read.log_id()))
    }

    /// One round for all the reads that wait on this node.
    pub async fn read_index_round(&self, within: Duration) -> Result<LogId, String> {
        match self.leader_hint() {
            None => Err("no leader is known".to_owned()),
            Some(leader) if leader == self.book.id => self.local_read_index().await,
            Some(leader) => match self
                .pool
                .call(leader, Purpose::Control, Request::ReadIndex, within)
                .await
            {
                Ok(Reply::ReadIndex(answer)) => answer,
                Ok(other) => Err(format!("unexpected reply {other:?}")),
                Err(error) => Err(error.to_string()),
            },
        }
    }

    async fn read_index(&self, deadline: Instant) -> Result<LogId, ReplicaError> {
        loop {
            if self.stopping.is_cancelled() {
                return Err(ReplicaError::ShuttingDown);
            }
            match tokio::time::timeout_at(deadline, self.reads.get()).await {
                Ok(Ok(log_id)) => return Ok(log_id),
                Ok(Err(ReadIndexError::Overloaded)) => {
                    return Err(ReplicaError::Overloaded("too many reads wait on this node".to_owned()));
                }
                Ok(Err(ReadIndexError::NotConfirmed(reason))) => tracing::debug!(%reason, "a read index round failed"),
                Err(_) => return Err(ReplicaError::NoLeader),
            }
            if tokio::time::timeout_at(deadline, tokio::time::sleep(RETRY_AFTER))
                .await
                .is_err()
            {
                return Err(ReplicaError::NoLeader);
            }
        }
    }

    async fn wait_applied(&self, index: u64, min: Option<Position>, deadline: Instant) -> Result<(), ReplicaError> {
        let revision = min.map(|position| position.revision).unwrap_or_default();
        let mut applied = self.applied.clone();
        let reached = applied.wait_for(|now| now.index() >= index && now.revision >= revision);
        match tokio::time::timeout_at(deadline, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ReplicaError::ShuttingDown),
            Err(_) => Err(ReplicaError::NotReady(
                "it has not caught up with the state that was asked for".to_owned(),
            )),
        }
    }

    async fn read_query(&self, query: Query, options: ReadOptions) -> Result<Answered, ReplicaError> {
        let deadline = Instant::from_std(options.deadline);
        if let Some(min) = options.min_position
            && min.epoch != self.applied.borrow().epoch
        {
            return Err(ReplicaError::PositionExpired);
        }
        let index = match options.level {
            Level::Linearizable => self.read_index(deadline).await?.index,
            Level::Local => 0,
        };
        self.wait_applied(index, options.min_position, deadline).await?;
        self.state.read(|view| query::query(&view, &query)).map_err(|error| {
            (self.on_fatal)(error.to_string());
            ReplicaError::ShuttingDown
        })
    }

    // ---- status ----

    fn raft_state(&self) -> NodeState {
        match self.raft.server_metrics().borrow_watched().state {
            ServerState::Leader => NodeState::Leader,
            ServerState::Candidate => NodeState::Candidate,
            ServerState::Learner => NodeState::Learner,
            ServerState::Follower | ServerState::Shutdown => NodeState::Follower,
        }
    }

    pub fn status_answer(&self) -> StatusAnswer {
        let metrics = self.raft.metrics();
        let (term, last_log) = {
            let metrics = metrics.borrow_watched();
            (metrics.current_term, metrics.last_log_index.unwrap_or(0))
        };
        StatusAnswer {
            id: self.book.id,
            state: self.raft_state(),
            term,
            last_log,
            applied: self.applied.borrow().index(),
        }
    }

    fn readiness(&self) -> Result<(), String> {
        if self.stopping.is_cancelled() {
            return Err("this node is shutting down".to_owned());
        }
        if !self.book.has_members() {
            return Err("the cluster is not initialised yet".to_owned());
        }
        if self.live_leader().is_none() {
            return Err("no leader is known".to_owned());
        }
        let metrics = self.raft.data_metrics();
        let committed = metrics.borrow_watched().local_committed.map_or(0, |id| id.index);
        let applied = self.applied.borrow().index();
        if applied + READY_LAG_ENTRIES < committed {
            return Err(format!("it has applied {applied} of {committed} committed entries"));
        }
        Ok(())
    }

    async fn cluster_status(&self, deadline: Instant) -> ClusterStatus {
        let membership = self.raft.server_metrics().borrow_watched().membership_config.clone();
        let voters: Vec<u64> = membership.voter_ids().collect();
        let members = self.book.members();
        let within = deadline.saturating_duration_since(Instant::now()).min(STATUS_TIMEOUT);
        let answers = join_all(members.keys().map(|id| async move {
            if *id == self.book.id {
                return Some(self.status_answer());
            }
            match self.pool.call(*id, Purpose::Control, Request::Status, within).await {
                Ok(Reply::Status(answer)) => Some(answer),
                _ => None,
            }
        }))
        .await;
        let leader = self.live_leader();
        let leader_last = answers
            .iter()
            .flatten()
            .find(|answer| Some(answer.id) == leader)
            .map(|answer| answer.last_log);
        let nodes: Vec<ClusterNode> = members
            .iter()
            .zip(answers)
            .map(|((id, member), answer)| {
                let (state, last_log, applied) = match &answer {
                    Some(answer) => (to_api_state(answer.state), answer.last_log, answer.applied),
                    None => (RaftState::Unreachable, 0, 0),
                };
                ClusterNode {
                    id: *id,
                    client_url: self.book.client_url(*id).unwrap_or_else(|| member.client_url.clone()),
                    peer_addr: self.book.peer_addr(*id).unwrap_or_else(|| member.peer_addr.clone()),
                    voter: voters.contains(id),
                    state,
                    last_log,
                    applied,
                    lag: leader_last.unwrap_or(last_log).saturating_sub(applied),
                }
            })
            .collect();
        let reachable = nodes
            .iter()
            .filter(|node| node.voter && node.state != RaftState::Unreachable)
            .count();
        let majority = voters.len() / 2 + 1;
        let term = self.raft.metrics().borrow_watched().current_term;
        ClusterStatus {
            cluster_id: self.book.cluster_id().unwrap_or_default(),
            version: CLUSTER_VERSION,
            nodes,
            leader,
            term,
            failures_tolerated: reachable.saturating_sub(majority) as u64,
        }
    }

    /// Hands leadership to the voter whose log is furthest, and waits until it is gone. Does nothing
    /// where this node does not lead.
    pub async fn hand_over(&self, within: Duration) {
        if self.raft_state() != NodeState::Leader {
            return;
        }
        let furthest = {
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
        };
        let Some(to) = furthest else { return };
        tracing::info!(to, "handing leadership over");
        if let Err(error) = self.raft.trigger().transfer_leader(to).await {
            tracing::warn!(%error, "failed to hand leadership over");
            return;
        }
        let mut leadership = self.raft.server_metrics();
        let taken_over = async {
            loop {
                let leader = leadership.borrow_and_update().current_leader;
                if leader.is_some_and(|leader| leader != self.book.id) {
                    return leader;
                }
                if leadership.changed().await.is_err() {
                    return None;
                }
            }
        };
        match tokio::time::timeout(within, taken_over).await {
            Ok(leader) => tracing::info!(leader, "leadership was handed over"),
            Err(_) => tracing::warn!("nobody took leadership over in time"),
        }
    }
}

/// What became of one attempt to write.
enum Attempt {
    /// Certainly not proposed: look for the leader again.
    Again,
    Final(ReplicaError),
}

fn to_api_state(state: NodeState) -> RaftState {
    match state {
        NodeState::Leader => RaftState::Leader,
        NodeState::Follower => RaftState::Follower,
        NodeState::Candidate => RaftState::Candidate,
        NodeState::Learner => RaftState::Learner,
    }
}

impl<S: StateStore> Replica for NodeCore<S> {
    fn write(&self, envelope: Envelope, options: WriteOptions) -> BoxFuture<'_, Result<Written, ReplicaError>> {
        Box::pin(async move {
            let outcome = self.write_command(envelope.encode().into(), options).await?;
            let position = Position::after(outcome.epoch, SpaceId::MAIN, outcome.revision);
            Ok(Written { outcome, position })
        })
    }

    fn read(&self, query: Query, options: ReadOptions) -> BoxFuture<'_, Result<Answered, ReplicaError>> {
        Box::pin(self.read_query(query, options))
    }

    fn watch_room(&self, room: RoomId) -> watch::Receiver<u64> {
        self.watchers.watch(room)
    }

    fn status(&self) -> NodeStatus {
        // A statement of its own, so that the borrow ends with it: a second borrow below it, while the
        // core waits to write, would block both for ever.
        let term = self.raft.server_metrics().borrow_watched().vote.leader_id.term;
        let applied = *self.applied.borrow();
        NodeStatus {
            node: self.book.id,
            position: Position::after(applied.epoch, SpaceId::MAIN, applied.revision),
            leader: self.live_leader(),
            term,
            state: to_api_state(self.raft_state()),
            ready: self.readiness(),
        }
    }

    fn cluster(&self, deadline: std::time::Instant) -> BoxFuture<'_, ClusterStatus> {
        Box::pin(self.cluster_status(Instant::from_std(deadline)))
    }

    fn shutting_down(&self) -> BoxFuture<'static, ()> {
        Box::pin(self.stopping.clone().cancelled_owned())
    }
}
