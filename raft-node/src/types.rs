//! The types with which openraft is configured, and their translation to storage's own.

use std::fmt;

use bincode::{Decode, Encode};
use bytes::Bytes;
use openraft::impls::leader_id_adv::LeaderId;
use openraft::metrics::{RaftDataMetrics, RaftServerMetrics};
use openraft::type_config::alias::WatchReceiverOf;
use quorate_state_machine::Outcome;
use quorate_storage::log;

openraft::declare_raft_types!(
    /// Leader ids are openraft's advanced kind (term and node): they are on disk and cannot change.
    pub TypeConfig:
        D = Payload,
        R = Vec<Outcome>,
        NodeId = u64,
        Node = Member,
        AsyncRuntime = crate::runtime::Runtime,
);

pub type LogId = openraft::LogId<LeaderId<u64, u64>>;
pub type Vote = openraft::Vote<LeaderId<u64, u64>>;
pub type Entry = openraft::Entry<LeaderId<u64, u64>, EntryPayload>;
pub type EntryPayload = openraft::EntryPayload<Payload, u64, Member>;
pub type Membership = openraft::Membership<u64, Member>;
pub type StoredMembership = openraft::StoredMembership<LeaderId<u64, u64>, u64, Member>;
/// What openraft's core tells of who leads, for whom it voted, and who belongs to the cluster.
pub type ServerMetrics = WatchReceiverOf<TypeConfig, RaftServerMetrics<TypeConfig>>;
/// What it tells of how far everybody is.
pub type DataMetrics = WatchReceiverOf<TypeConfig, RaftDataMetrics<TypeConfig>>;
pub type AppendRequest = openraft::raft::AppendEntriesRequest<TypeConfig>;

/// An encoded `PackedEntry`: the bytes that go to the log, to the peers and to apply, encoded once.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload(pub Bytes);

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A node as the membership in the log knows it. Its identity is its id and its store id; the
/// addresses are where it was last said to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Member {
    pub peer_addr: String,
    pub client_url: String,
    /// Of the data directory: a wiped or swapped disk is another store and is refused.
    pub store_id: u128,
    /// While it is a learner: the voter whose place it takes when it has caught up. A learner is always
    /// on its way to become a voter, so that whoever leads then knows from the log what is to be done.
    pub replaces: Option<u64>,
}

pub fn to_stored_log_id(id: LogId) -> log::LogId {
    log::LogId {
        term: id.leader_id.term,
        leader: id.leader_id.node_id,
        index: id.index,
    }
}

pub fn to_raft_log_id(id: log::LogId) -> LogId {
    LogId {
        leader_id: LeaderId {
            term: id.term,
            node_id: id.leader,
        },
        index: id.index,
    }
}

pub fn to_stored_vote(vote: Vote) -> log::Vote {
    log::Vote {
        term: vote.leader_id.term,
        leader: vote.leader_id.node_id,
        committed: vote.committed,
    }
}

pub fn to_raft_vote(vote: log::Vote) -> Vote {
    Vote {
        leader_id: LeaderId {
            term: vote.term,
            node_id: vote.leader,
        },
        committed: vote.committed,
    }
}
