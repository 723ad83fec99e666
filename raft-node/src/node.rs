//! One node, as the API and its peers ask it: what happens to a write and to a read.
//!
//! A write goes to the local proposer if this node leads, else once to the leader. It is tried again
//! only while it is certain that it was never proposed. A read waits until this node has applied what
//! the asked level demands, then answers from one snapshot of the local state.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use openraft::ReadPolicy;
use openraft::async_runtime::WatchReceiver;
use quorate_api::replica::{
    AdminError, Change, ClusterStatus, Level, NewNode, NodeStatus, ReadOptions, Replica, ReplicaError, Verification,
    WriteOptions, Written,
};
use quorate_state_machine::planted::{Bug, is_planted};
use quorate_state_machine::query::{Answered, PageSink};
use quorate_state_machine::{
    Envelope, Fatal, Home, Outcome, Position, Query, RunId, SpaceId, Topic, View, query, version,
};
use quorate_storage::aside_if;
use quorate_storage::log::LogId;
use quorate_storage::state::StateStore;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::changes::Changes;
use crate::clock::Clock;
use crate::compaction::Compaction;
use crate::disk::DiskGuard;
use crate::failover::Failover;
use crate::leadership::LeaderContact;
use crate::peers::admin::{AdminReply, AdminRequest};
use crate::peers::connection::CallError;
use crate::peers::followed::Sent;
use crate::peers::frame::{Blob, ForwardError, Reply, Request};
use crate::peers::{PeerBook, Pool, Purpose};
use crate::proposer::{ProposeError, Proposer};
use crate::read_index::{ReadIndex, ReadIndexError};
use crate::state_hashes::StateHashes;
use crate::state_machine::{AppliedNow, Machine};
use crate::status::to_api_state;
use crate::types::{DataMetrics, ServerMetrics, TypeConfig, to_stored_log_id};
use crate::versions::Supported;
use crate::watchers::Watchers;

pub type Raft<S> = openraft::Raft<TypeConfig, Machine<S>>;

/// While there is no leader, or it cannot be reached, a request looks again this often.
const RETRY_AFTER: Duration = Duration::from_millis(10);
/// Kept from a forwarded write's time for the way back, so that the leader's answer comes first.
const FORWARD_MARGIN: Duration = Duration::from_millis(20);
/// A leader that hands over answers what it has taken as soon as the next one has committed it; one that was replaced
/// because it stands still does not.
const OVERTAKEN_ANSWERS_WITHIN: Duration = Duration::from_millis(200);
/// One attempt of a node to be where its leader is.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(5);

pub struct NodeCore<S: StateStore> {
    pub book: Arc<PeerBook>,
    pub raft: Raft<S>,
    /// Kept, because each request looks at it several times: to ask openraft for it anew is to count a receiver in and out.
    pub server: ServerMetrics,
    /// The same.
    pub data: DataMetrics,
    pub state: S,
    pub pool: Arc<Pool>,
    pub applied: watch::Receiver<AppliedNow>,
    /// Changes less often than `applied`.
    pub next_expiry: watch::Receiver<Option<u64>>,
    pub watchers: Arc<Watchers>,
    pub proposer: Proposer,
    pub reads: ReadIndex,
    pub contact: LeaderContact,
    pub failover: Failover,
    pub changes: Changes,
    pub hashes: StateHashes,
    /// Held by the leader while it has all nodes compared.
    pub verifying: tokio::sync::Mutex<()>,
    pub disk: DiskGuard,
    pub compaction: Compaction,
    /// The cluster versions that this build can be part of.
    pub versions: Supported,
    pub clock: Clock,
    /// This run of the process.
    pub run: RunId,
    /// For snapshots that other nodes send.
    pub incoming_dir: PathBuf,
    /// Cancelled when the node begins to go down.
    pub stopping: CancellationToken,
    /// Ends the process: the state is damaged.
    pub on_fatal: quorate_storage::FatalHook,
}

impl<S: StateStore> NodeCore<S> {
    /// Neither log nor vote: this store has never been part of a cluster.
    pub fn is_empty(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.last_log_index.is_none() && metrics.vote.leader_id.term == 0
    }

    // ---- writes ----

    pub(crate) async fn write_command(&self, command: Bytes, options: WriteOptions) -> Result<Outcome, ReplicaError> {
        let deadline = Instant::from_std(options.deadline);
        let mut leadership = self.raft.server_metrics();
        loop {
            if self.stopping.is_cancelled() {
                return Err(ReplicaError::ShuttingDown);
            }
            drop(leadership.borrow_and_update());
            let leader = self.leader_hint();
            let attempt = match leader {
                Some(leader) if leader == self.book.id => {
                    if self.disk.refuses(&command) {
                        return Err(ReplicaError::DiskFull);
                    }
                    self.proposer
                        .propose(command.clone(), deadline)
                        .await
                        .map_err(|error| self.explain(error))
                }
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
        let asked = self.pool.call(leader, Purpose::Forward, request, within);
        let reply = tokio::select! {
            biased;
            reply = asked => reply,
            () = self.overtaken(leader) => return unknown(format!("node {leader} was replaced while it was asked")),
        };
        match reply {
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

    /// Returns when another node has led for a while: whoever still waits for the old leader should ask again.
    async fn overtaken(&self, leader: u64) {
        let mut leadership = self.raft.server_metrics();
        loop {
            let now = leadership.borrow_and_update().current_leader;
            if now.is_some_and(|now| now != leader) {
                return tokio::time::sleep(OVERTAKEN_ANSWERS_WITHIN).await;
            }
            if leadership.changed().await.is_err() {
                // The core has stopped; the process is about to end.
                std::future::pending::<()>().await;
            }
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
        if self.disk.refuses(&command) {
            return Err(ForwardError::DiskFull);
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
        if is_planted(Bug::ReadWithoutQuorum)
            && self.leads()
            && let Some(applied) = self.applied.borrow().log_id
        {
            return Ok(applied);
        }
        let began = Instant::now();
        let (read, _) = self
            .raft
            .get_read_log_id(ReadPolicy::ReadIndex)
            .await
            .map_err(|error| error.to_string())?;
        let log_id = to_stored_log_id(*read.log_id());
        let since = Sent {
            // A leader reads at an entry of its own.
            term: log_id.term,
            at: began,
        };
        let voters = || {
            let membership = self.server.borrow_watched().membership_config.clone();
            membership.membership().get_joint_config().clone()
        };
        match self.pool.followed.by_majority(since, self.book.id, voters).await {
            true => Ok(log_id),
            false => Err("no majority confirmed the leader in time".to_owned()),
        }
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

    /// Waits until this node has applied all that was committed when it began.
    pub(crate) async fn catch_up(&self) -> Result<(), ReplicaError> {
        let deadline = Instant::now() + CATCH_UP_WITHIN;
        let index = self.read_index(deadline).await?.index;
        self.wait_applied(index, None, deadline).await
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

    /// Answers from a state that is as new as was asked for.
    async fn read_state(
        &self,
        query: Query,
        options: ReadOptions,
        answer: impl FnOnce(&dyn View, &Query) -> Result<Answered, Fatal> + Send,
    ) -> Result<Answered, ReplicaError> {
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
        let read = || self.state.read(|view| answer(view, &query));
        aside_if(query.may_take_long(), read).map_err(|error| {
            (self.on_fatal)(error.to_string());
            ReplicaError::ShuttingDown
        })
    }
}

/// What became of one attempt to write.
enum Attempt {
    /// Certainly not proposed: look for the leader again.
    Again,
    Final(ReplicaError),
}

impl<S: StateStore> Replica for NodeCore<S> {
    fn write(&self, envelope: Envelope, options: WriteOptions) -> BoxFuture<'_, Result<Written, ReplicaError>> {
        Box::pin(async move {
            let needed = version::needed_by(&envelope);
            self.await_version(needed, Instant::from_std(options.deadline)).await?;
            let outcome = self.write_command(envelope.encode().into(), options).await?;
            let position = Position::after(outcome.epoch, SpaceId::MAIN, outcome.revision);
            Ok(Written { outcome, position })
        })
    }

    fn read(&self, query: Query, options: ReadOptions) -> BoxFuture<'_, Result<Answered, ReplicaError>> {
        Box::pin(self.read_state(query, options, |view, query| query::query(&view, query)))
    }

    fn read_page<'a>(
        &'a self,
        query: Query,
        options: ReadOptions,
        sink: &'a mut (dyn PageSink + Send),
    ) -> BoxFuture<'a, Result<Answered, ReplicaError>> {
        Box::pin(self.read_state(query, options, |view, query| query::query_into(&view, query, sink)))
    }

    fn watch(&self, topic: Topic) -> watch::Receiver<u64> {
        self.watchers.watch(topic)
    }

    fn status(&self) -> NodeStatus {
        let term = self.term();
        let applied = *self.applied.borrow();
        NodeStatus {
            node: self.book.id,
            position: Position::after(applied.epoch, SpaceId::MAIN, applied.revision),
            leader: self.live_leader(),
            term,
            state: to_api_state(self.raft_state()),
            elapsed_ms: applied.reckoned_ms(),
            home: Home {
                node: self.book.id,
                run: self.run,
            },
        }
    }

    fn readiness(&self) -> Result<(), String> {
        NodeCore::readiness(self)
    }

    fn cluster(&self, deadline: std::time::Instant) -> BoxFuture<'_, ClusterStatus> {
        Box::pin(self.cluster_status(Instant::from_std(deadline)))
    }

    fn add_node(&self, node: NewNode, deadline: std::time::Instant) -> BoxFuture<'_, Result<Change, AdminError>> {
        let request = AdminRequest::AddNode {
            id: node.id,
            client_url: node.client_url,
            peer_addr: node.peer_addr,
            replaces: node.replaces,
        };
        Box::pin(async move {
            match self.admin(request, Instant::from_std(deadline)).await? {
                AdminReply::Begun(change) => Ok(change.into_api()),
                other => Err(unexpected(&other)),
            }
        })
    }

    fn remove_node(&self, id: u64, deadline: std::time::Instant) -> BoxFuture<'_, Result<(), AdminError>> {
        Box::pin(async move {
            match self
                .admin(AdminRequest::RemoveNode { id }, Instant::from_std(deadline))
                .await?
            {
                AdminReply::Done => Ok(()),
                other => Err(unexpected(&other)),
            }
        })
    }

    fn transfer(&self, to: Option<u64>, deadline: std::time::Instant) -> BoxFuture<'_, Result<u64, AdminError>> {
        Box::pin(async move {
            match self
                .admin(AdminRequest::Transfer { to }, Instant::from_std(deadline))
                .await?
            {
                AdminReply::Transferred(leader) => Ok(leader),
                other => Err(unexpected(&other)),
            }
        })
    }

    fn take_snapshot(&self) -> BoxFuture<'_, Result<(), AdminError>> {
        Box::pin(async move {
            self.compaction.ask();
            Ok(())
        })
    }

    fn verify(&self, deadline: std::time::Instant) -> BoxFuture<'_, Result<Verification, AdminError>> {
        Box::pin(async move {
            match self.admin(AdminRequest::Verify, Instant::from_std(deadline)).await? {
                AdminReply::Verified(verification) => Ok(verification.into_api()),
                other => Err(unexpected(&other)),
            }
        })
    }

    fn shutting_down(&self) -> BoxFuture<'static, ()> {
        Box::pin(self.stopping.clone().cancelled_owned())
    }
}

fn unexpected(reply: &AdminReply) -> AdminError {
    ReplicaError::CommitUnknown(format!("unexpected reply {reply:?}")).into()
}
