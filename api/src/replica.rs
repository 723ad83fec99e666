//! The one boundary between HTTP and the cluster. `raft-node` implements [`Replica`]; the tests of
//! this crate use a single-node one in memory.

use std::sync::Arc;
use std::time::Instant;

use futures::future::BoxFuture;
use quorate_state_machine::query::{Answered, PageSink};
use quorate_state_machine::{Envelope, Home, Outcome, Position, Query, Topic};
use tokio::sync::watch;

pub type SharedReplica = Arc<dyn Replica>;

pub trait Replica: Send + Sync + 'static {
    /// Proposes the command, on this node if it leads, else on the leader (forwarded once).
    /// An `Ok` was committed and applied on a majority's disks; its `Outcome` may hold a refusal.
    fn write(&self, envelope: Envelope, options: WriteOptions) -> BoxFuture<'_, Result<Written, ReplicaError>>;

    /// Answers from this node's state, at the asked level.
    fn read(&self, query: Query, options: ReadOptions) -> BoxFuture<'_, Result<Answered, ReplicaError>>;

    /// The same for a question about a page of messages, which goes to `sink` (see [`query_into`]); the answer then says
    /// no more than where the page lies. After an error the sink may hold a part of it, or all.
    ///
    /// [`query_into`]: quorate_state_machine::query_into
    fn read_page<'a>(
        &'a self,
        query: Query,
        options: ReadOptions,
        sink: &'a mut (dyn PageSink + Send),
    ) -> BoxFuture<'a, Result<Answered, ReplicaError>>;

    /// Changes whenever something about the topic may have changed on this node. Hints only: whoever
    /// waits asks the state for what it was, so nothing is lost when a hint is coalesced. It holds the
    /// store's revision after the last such change, which a read that begins now reflects; at first any
    /// earlier one, or 0.
    fn watch(&self, topic: Topic) -> watch::Receiver<u64>;

    /// What this node knows of itself and its leader, without IO: cheap enough for every answer.
    fn status(&self) -> NodeStatus;

    /// Whether the leader is known and this node has applied what was committed when it was asked; if not, why.
    fn readiness(&self) -> Result<(), String>;

    /// The cluster as this node sees it; asks the other nodes for their part, within the deadline.
    fn cluster(&self, deadline: Instant) -> BoxFuture<'_, ClusterStatus>;

    /// Begins to add a node, or to put it in the place of another. Done by the leader, which any node
    /// asks; the progress is in [`ClusterStatus::changes`]. Asking again for what is under way or done
    /// answers the same.
    fn add_node(&self, node: NewNode, deadline: Instant) -> BoxFuture<'_, Result<Change, AdminError>>;

    /// Removes a node, and returns when the removal is committed.
    fn remove_node(&self, id: u64, deadline: Instant) -> BoxFuture<'_, Result<(), AdminError>>;

    /// Hands leadership to a voter (none: to the one whose log is furthest), and returns the new leader.
    fn transfer(&self, to: Option<u64>, deadline: Instant) -> BoxFuture<'_, Result<u64, AdminError>>;

    /// Begins to take a snapshot on this node and to purge the log that it covers.
    fn take_snapshot(&self) -> BoxFuture<'_, Result<(), AdminError>>;

    /// Has every node hash its state at one entry of the log, and compares.
    fn verify(&self, deadline: Instant) -> BoxFuture<'_, Result<Verification, AdminError>>;

    /// Ends when the node begins to shut down: streams end then.
    fn shutting_down(&self) -> BoxFuture<'static, ()>;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewNode {
    pub id: u64,
    /// `http://host:port`
    pub client_url: String,
    /// `host:port`
    pub peer_addr: String,
    /// The voter that it takes the place of, in one change.
    pub replaces: Option<u64>,
}

/// A change of the membership that is under way, or that has lately ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub kind: ChangeKind,
    pub node: u64,
    pub replaces: Option<u64>,
    pub step: ChangeStep,
    /// In words: what it waits for, how far it is, or why it failed.
    pub detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    Add,
    Replace,
    Remove,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeStep {
    /// The leader cannot reach the node yet.
    Contacting,
    /// It is a learner that receives the log or a snapshot.
    CatchingUp,
    /// It has caught up; the change of voters is in the log and not committed yet.
    Promoting,
    Done,
    Failed,
}

/// Why a change of the cluster was not begun. Nothing has changed, except after `Replica`'s
/// `CommitUnknown`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// 404: no such node.
    #[error("{0}")]
    NotFound(String),
    /// 409 `already_exists`: the id or an address belongs to another node.
    #[error("{0}")]
    AlreadyExists(String),
    /// 409 `conflict`: another change is under way, or the cluster would lose its quorum.
    #[error("{0}")]
    Conflict(String),
    /// 422 `invalid`: an id that was removed, a node to replace that does not exist, a store that
    /// belongs to another cluster.
    #[error("{0}")]
    Invalid(String),
    #[error(transparent)]
    Replica(#[from] ReplicaError),
}

/// The hashes of all nodes' states after one entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// Log index of that entry.
    pub index: u64,
    pub revision: u64,
    /// By id.
    pub nodes: Vec<NodeHash>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeHash {
    pub id: u64,
    /// The hash, or in words why there is none.
    pub hash: Result<u128, String>,
    /// It has a hash, and that is not the one that most nodes have.
    pub differs: bool,
}

#[derive(Debug, Clone, Copy)]
pub struct WriteOptions {
    pub deadline: Instant,
    /// `?redirect=true`: a follower answers [`ReplicaError::Redirect`] instead of forwarding.
    pub redirect: bool,
}

#[derive(Debug, Clone)]
pub struct Written {
    pub outcome: Outcome,
    /// The state that the answer reflects.
    pub position: Position,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Linearizable,
    Local,
}

#[derive(Debug, Clone, Copy)]
pub struct ReadOptions {
    pub deadline: Instant,
    pub level: Level,
    /// `X-Quorate-Min-Position`: wait until this node reflects it.
    pub min_position: Option<Position>,
}

/// Why there is no answer. Each says whether the write may have happened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplicaError {
    /// 307 to the leader's client URL; never proposed.
    #[error("the leader is at {client_url}")]
    Redirect { client_url: String },
    /// 503, certainly never proposed.
    #[error("no leader is known")]
    NoLeader,
    /// 503, certainly never proposed: not caught up, still starting, or behind the asked position.
    #[error("this node is not ready: {0}")]
    NotReady(String),
    /// 503, certainly never proposed.
    #[error("this node is shutting down")]
    ShuttingDown,
    /// 429, certainly never proposed: a queue is full.
    #[error("overloaded: {0}")]
    Overloaded(String),
    /// 507, certainly never proposed.
    #[error("the disk is full")]
    DiskFull,
    /// 410: the position belongs to another epoch.
    #[error("the position is of another epoch of this store")]
    PositionExpired,
    /// 504: proposed or forwarded; it may have been applied or not.
    #[error("the outcome is not known: {0}")]
    CommitUnknown(String),
}

/// What every answer's headers say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    pub node: u64,
    pub leader: Option<u64>,
    pub term: u64,
    /// Raft state of this node.
    pub state: RaftState,
    /// The state that this node holds now.
    pub position: Position,
    /// The replicated clock as this node reckons it now: where it stood when something was last applied, and
    /// the time since by the node's own clock. Time without a leader is counted here and not there, so what is
    /// left of a ttl is never shown longer for it.
    pub elapsed_ms: u64,
    /// This run of this node: who waits here is gone when it ends.
    pub home: Home,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RaftState {
    Leader,
    Follower,
    Candidate,
    Learner,
    Unreachable,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterStatus {
    pub cluster_id: String,
    /// The replicated cluster version.
    pub version: u32,
    pub nodes: Vec<ClusterNode>,
    pub leader: Option<u64>,
    pub term: u64,
    /// How many more voters may fail before writes stop.
    pub failures_tolerated: u64,
    /// Under way, and those that have lately ended; as the leader knows them, so none without one.
    pub changes: Vec<Change>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterNode {
    pub id: u64,
    pub client_url: String,
    pub peer_addr: String,
    pub voter: bool,
    pub state: RaftState,
    pub last_log: u64,
    pub applied: u64,
    /// Entries that the leader has and this node has not applied.
    pub lag: u64,
}
