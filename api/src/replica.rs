//! The one boundary between HTTP and the cluster. `raft-node` implements [`Replica`]; the tests of
//! this crate use a single-node one in memory.

use std::sync::Arc;
use std::time::Instant;

use futures::future::BoxFuture;
use quorate_state_machine::query::Answered;
use quorate_state_machine::{Envelope, Outcome, Position, Query, RoomId};
use tokio::sync::watch;

pub type SharedReplica = Arc<dyn Replica>;

pub trait Replica: Send + Sync + 'static {
    /// Proposes the command, on this node if it leads, else on the leader (forwarded once).
    /// An `Ok` was committed and applied on a majority's disks; its `Outcome` may hold a refusal.
    fn write(&self, envelope: Envelope, options: WriteOptions) -> BoxFuture<'_, Result<Written, ReplicaError>>;

    /// Answers from this node's state, at the asked level.
    fn read(&self, query: Query, options: ReadOptions) -> BoxFuture<'_, Result<Answered, ReplicaError>>;

    /// Changes whenever something in the room may have changed on this node. Hints only: a reader
    /// asks `Query::RoomChanges` for what it was, so nothing is lost when a hint is coalesced.
    fn watch_room(&self, room: RoomId) -> watch::Receiver<u64>;

    /// What this node knows of itself and its leader, without IO: cheap enough for every answer.
    fn status(&self) -> NodeStatus;

    /// The cluster as this node sees it; asks the other nodes for their part, within the deadline.
    fn cluster(&self, deadline: Instant) -> BoxFuture<'_, ClusterStatus>;

    /// Ends when the node begins to shut down: streams end then.
    fn shutting_down(&self) -> BoxFuture<'static, ()>;
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
    /// The leader is known and this node has applied what was committed when it asked.
    pub ready: Result<(), String>,
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
