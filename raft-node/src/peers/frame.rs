//! Requests and replies between nodes, and how they are written: kind, version and bincode (see `codec`), in
//! frames that are checked (see [`super::framing`]). Variants are never reordered: their number is on the wire.

use std::io;

use bincode::de::{BorrowDecoder, Decoder};
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
use bincode::{BorrowDecode, Decode, Encode};
use bytes::Bytes;
use openraft::raft::{
    AppendEntriesResponse, StreamAppendError, StreamAppendResult, TransferLeaderRequest, VoteRequest, VoteResponse,
};
use quorate_state_machine::codec::{self, Kind};
use quorate_storage::log::{LogId, Vote};
use quorate_storage::transfer::{Chunk, Manifest};

use super::admin::{AdminRefusal, AdminReply, AdminRequest, Change};
use crate::membership::{to_entry, to_record};
use crate::types::{AppendRequest, TypeConfig, to_raft_log_id, to_raft_vote, to_stored_log_id, to_stored_vote};
use crate::versions::Supported;

/// The versions of this protocol that this build speaks. Version 1 had no checksums, and was never released.
/// Version 3 says in the handshake which run of the process answers, and knows `LostLeader` and `FailoverVote`.
pub const PROTOCOL_MIN: u32 = 2;
pub const PROTOCOL_MAX: u32 = 3;
/// From this version on a peer takes part in a failover.
pub const PROTOCOL_FAILOVER: u32 = 3;

const VERSION: u8 = 1;

/// What a connection is for. Each purpose has its own, so that none waits behind another's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub enum Purpose {
    /// Heartbeats, votes, leadership transfer, ReadIndex: small and urgent.
    Control,
    /// Entries, pipelined and in order.
    Append,
    /// Clients' writes on their way to the leader.
    Forward,
    /// Asked before there is a cluster: who are you, is your store empty?
    Bootstrap,
    /// Whole states for nodes that need more of the log than there is.
    Snapshot,
}

#[derive(Debug, Encode, Decode)]
pub struct Frame<T> {
    /// A reply carries its request's number.
    pub id: u64,
    pub body: T,
}

#[derive(Debug, Encode, Decode)]
pub enum Request {
    /// A heartbeat, or entries outside a stream. `confirmed`: a majority has lately answered this
    /// leader. One that nobody answers goes on sending, and must not pass for alive.
    Append {
        append: Append,
        confirmed: bool,
    },
    /// Part of a stream of appends. A new session begins when openraft starts a stream anew.
    StreamAppend {
        session: u64,
        append: Append,
    },
    PreVote(VoteAsk),
    Vote(VoteAsk),
    TransferLeader {
        from: Vote,
        to: u64,
        last_log_id: Option<LogId>,
    },
    /// The leader confirms by a round of heartbeats that it leads and says up to which entry a read
    /// must wait (Raft dissertation, section 6.4).
    ReadIndex,
    /// A client's write: an encoded `Envelope`.
    Forward {
        command: Blob,
        timeout_ms: u64,
    },
    Status,
    /// A snapshot comes: one that was under way from this peer is given up.
    SnapshotBegin {
        vote: Vote,
        last_log_id: Option<LogId>,
        /// An encoded `MembershipRecord`.
        membership: Blob,
        manifest: Manifest,
    },
    /// The chunks come in order, each after the one before was answered.
    SnapshotChunk(Chunk),
    /// All chunks were sent: install it.
    SnapshotEnd,
    /// A change of the cluster, for the leader.
    Admin {
        request: AdminRequest,
        timeout_ms: u64,
    },
    /// The hash of the state after this entry, which is a mark.
    StateHash {
        index: u64,
        timeout_ms: u64,
    },
    /// Is the process gone that leads by this vote? Answered when the peer has lost it too, or when the time is up.
    LostLeader {
        leader: Vote,
        timeout_ms: u64,
    },
    /// A vote in an election that was begun because the leader's process is gone (see `failover`).
    FailoverVote(VoteAsk),
}

#[derive(Debug, Encode, Decode)]
pub enum Reply {
    Append(AppendOutcome),
    StreamAppend {
        session: u64,
        outcome: StreamOutcome,
    },
    Vote(VoteAnswer),
    TransferLeader(Result<(), String>),
    ReadIndex(Result<LogId, String>),
    /// An encoded `Outcome` without its events.
    Forward(Result<Blob, ForwardError>),
    Status(StatusAnswer),
    /// The node's Raft core has stopped.
    Stopped(String),
    /// To the beginning of a snapshot and to each chunk.
    SnapshotTaken(Result<(), String>),
    /// The snapshot is installed; the vote is the receiver's.
    SnapshotInstalled(Result<Vote, String>),
    Admin(Result<AdminReply, AdminRefusal>),
    /// Revision and hash.
    StateHash(Result<(u64, u128), String>),
    LostLeader(LostAnswer),
}

/// Whether the leader that was asked about is lost here too, and how far this node's log is. With the leader gone it
/// grows no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct LostAnswer {
    pub lost: bool,
    pub last_log_id: Option<LogId>,
}

/// Why a forwarded write has no outcome. All but `Unknown` mean: certainly not proposed there.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ForwardError {
    NotLeader,
    Overloaded(String),
    ShuttingDown,
    DiskFull,
    /// Proposed: it may be committed or not.
    Unknown(String),
    /// The deadline passed before it was proposed.
    Expired,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct StatusAnswer {
    pub id: u64,
    pub state: NodeState,
    pub term: u64,
    pub last_log: u64,
    pub applied: u64,
    /// Less space is free on its disk than it must keep.
    pub disk_low: bool,
    /// The leader's.
    pub changes: Vec<Change>,
    /// Which cluster versions its build can be part of.
    pub versions: Supported,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum NodeState {
    Leader,
    Follower,
    Candidate,
    Learner,
}

#[derive(Debug, Encode, Decode)]
pub struct Append {
    vote: Vote,
    prev: Option<LogId>,
    commit: Option<LogId>,
    entries: Vec<WireRecord>,
}

#[derive(Debug, Encode, Decode)]
struct WireRecord {
    id: LogId,
    payload: Blob,
}

#[derive(Debug, Encode, Decode)]
pub enum AppendOutcome {
    Success,
    Partial(Option<LogId>),
    Conflict,
    HigherVote(Vote),
}

#[derive(Debug, Encode, Decode)]
pub enum StreamOutcome {
    Matching(Option<LogId>),
    Conflict(LogId),
    HigherVote(Vote),
    Stopped(String),
}

#[derive(Debug, Encode, Decode)]
pub struct VoteAsk {
    vote: Vote,
    last_log_id: Option<LogId>,
    leadership_transfer: bool,
}

#[derive(Debug, Encode, Decode)]
pub struct VoteAnswer {
    vote: Vote,
    granted: bool,
    last_log_id: Option<LogId>,
}

/// Bytes that are copied as a whole, not one by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob(pub Bytes);

impl Encode for Blob {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.0.as_ref().encode(encoder)
    }
}

impl<C> Decode<C> for Blob {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Ok(Self(Vec::<u8>::decode(decoder)?.into()))
    }
}

impl<'de, C> BorrowDecode<'de, C> for Blob {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Self::decode(decoder)
    }
}

pub fn encode<T: Encode>(kind: Kind, body: &T) -> Bytes {
    codec::encode(kind, VERSION, body).into()
}

pub fn decode<T: Decode<()>>(kind: Kind, bytes: &[u8]) -> io::Result<T> {
    codec::decode(kind, VERSION, bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

pub fn encode_frame<T: Encode>(frame: &Frame<T>) -> Bytes {
    encode(Kind::PeerFrame, frame)
}

pub fn decode_frame<T: Decode<()>>(bytes: &[u8]) -> io::Result<Frame<T>> {
    decode(Kind::PeerFrame, bytes)
}

impl Append {
    pub fn from_raft(request: &AppendRequest) -> Self {
        Self {
            vote: to_stored_vote(request.vote),
            prev: request.prev_log_id.map(to_stored_log_id),
            commit: request.leader_commit.map(to_stored_log_id),
            entries: request
                .entries
                .iter()
                .map(to_record)
                .map(|record| WireRecord {
                    id: record.id,
                    payload: Blob(record.payload),
                })
                .collect(),
        }
    }

    pub fn into_raft(self) -> io::Result<AppendRequest> {
        let entries = self
            .entries
            .into_iter()
            .map(|record| {
                to_entry(quorate_storage::log::Record {
                    id: record.id,
                    payload: record.payload.0,
                })
            })
            .collect::<io::Result<_>>()?;
        Ok(AppendRequest {
            vote: to_raft_vote(self.vote),
            prev_log_id: self.prev.map(to_raft_log_id),
            leader_commit: self.commit.map(to_raft_log_id),
            entries,
        })
    }
}

impl AppendOutcome {
    pub fn from_raft(response: AppendEntriesResponse<TypeConfig>) -> Self {
        match response {
            AppendEntriesResponse::Success => Self::Success,
            AppendEntriesResponse::PartialSuccess(id) => Self::Partial(id.map(to_stored_log_id)),
            AppendEntriesResponse::Conflict => Self::Conflict,
            AppendEntriesResponse::HigherVote(vote) => Self::HigherVote(to_stored_vote(vote)),
        }
    }

    pub fn into_raft(self) -> AppendEntriesResponse<TypeConfig> {
        match self {
            Self::Success => AppendEntriesResponse::Success,
            Self::Partial(id) => AppendEntriesResponse::PartialSuccess(id.map(to_raft_log_id)),
            Self::Conflict => AppendEntriesResponse::Conflict,
            Self::HigherVote(vote) => AppendEntriesResponse::HigherVote(to_raft_vote(vote)),
        }
    }
}

impl StreamOutcome {
    pub fn from_raft(result: StreamAppendResult<TypeConfig>) -> Self {
        match result {
            Ok(matching) => Self::Matching(matching.map(to_stored_log_id)),
            Err(StreamAppendError::Conflict(id)) => Self::Conflict(to_stored_log_id(id)),
            Err(StreamAppendError::HigherVote(vote)) => Self::HigherVote(to_stored_vote(vote)),
        }
    }

    /// The outer error is a node whose core has stopped.
    pub fn into_raft(self) -> Result<StreamAppendResult<TypeConfig>, String> {
        match self {
            Self::Matching(id) => Ok(Ok(id.map(to_raft_log_id))),
            Self::Conflict(id) => Ok(Err(StreamAppendError::Conflict(to_raft_log_id(id)))),
            Self::HigherVote(vote) => Ok(Err(StreamAppendError::HigherVote(to_raft_vote(vote)))),
            Self::Stopped(reason) => Err(reason),
        }
    }
}

impl VoteAsk {
    pub fn from_raft(request: &VoteRequest<TypeConfig>) -> Self {
        Self {
            vote: to_stored_vote(request.vote),
            last_log_id: request.last_log_id.map(to_stored_log_id),
            leadership_transfer: request.leadership_transfer,
        }
    }

    /// The same without the leader's word for it: whether its lease counts is for the receiver to say.
    pub fn without_leave(request: &VoteRequest<TypeConfig>) -> Self {
        Self {
            leadership_transfer: false,
            ..Self::from_raft(request)
        }
    }

    pub fn into_raft(self) -> VoteRequest<TypeConfig> {
        VoteRequest {
            leadership_transfer: self.leadership_transfer,
            ..VoteRequest::new(to_raft_vote(self.vote), self.last_log_id.map(to_raft_log_id))
        }
    }

    /// A failover's vote: the lease of the leader that was lost does not count.
    pub fn into_raft_past_lease(self) -> VoteRequest<TypeConfig> {
        VoteRequest {
            leadership_transfer: true,
            ..self.into_raft()
        }
    }
}

impl VoteAnswer {
    pub fn from_raft(response: VoteResponse<TypeConfig>) -> Self {
        Self {
            vote: to_stored_vote(response.vote),
            granted: response.vote_granted,
            last_log_id: response.last_log_id.map(to_stored_log_id),
        }
    }

    pub fn into_raft(self) -> VoteResponse<TypeConfig> {
        VoteResponse::new(
            to_raft_vote(self.vote),
            self.last_log_id.map(to_raft_log_id),
            self.granted,
        )
    }
}

pub fn transfer_from_raft(request: &TransferLeaderRequest<TypeConfig>) -> Request {
    Request::TransferLeader {
        from: to_stored_vote(*request.from_leader()),
        to: *request.to_node_id(),
        last_log_id: request.last_log_id().copied().map(to_stored_log_id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Entry, EntryPayload, Payload};

    #[test]
    fn an_append_travels_and_keeps_its_bytes() {
        let log_id = |index| {
            to_raft_log_id(LogId {
                term: 2,
                leader: 1,
                index,
            })
        };
        let request = AppendRequest {
            vote: to_raft_vote(Vote {
                term: 2,
                leader: 1,
                committed: true,
            }),
            prev_log_id: Some(log_id(4)),
            leader_commit: Some(log_id(3)),
            entries: vec![
                Entry {
                    log_id: log_id(5),
                    payload: EntryPayload::Blank,
                },
                Entry {
                    log_id: log_id(6),
                    payload: EntryPayload::Normal(Payload(Bytes::from_static(&[2, 1, 7]))),
                },
            ],
        };
        let bytes = encode_frame(&Frame {
            id: 8,
            body: Request::StreamAppend {
                session: 3,
                append: Append::from_raft(&request),
            },
        });
        // Golden bytes: a node of another build reads these.
        assert_eq!(
            bytes.as_ref(),
            [
                97, 1, 8, 1, 3, 2, 1, 1, 1, 2, 1, 4, 1, 2, 1, 3, 2, 2, 1, 5, 0, 2, 1, 6, 3, 2, 1, 7
            ]
        );
        let frame: Frame<Request> = decode_frame(&bytes).unwrap();
        let Request::StreamAppend { session: 3, append } = frame.body else {
            panic!("another request: {frame:?}")
        };
        let back = append.into_raft().unwrap();
        assert_eq!(
            (back.vote, back.prev_log_id, back.leader_commit),
            (request.vote, Some(log_id(4)), Some(log_id(3)))
        );
        assert_eq!(back.entries, request.entries);
    }

    #[test]
    fn damaged_frames_are_errors() {
        let bytes = encode_frame(&Frame {
            id: 1,
            body: Request::Status,
        });
        assert!(decode_frame::<Request>(&bytes[..2]).is_err());
        assert!(decode_frame::<Request>(&[0; 12]).is_err());
        assert!(decode_frame::<Request>(&[]).is_err());
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert!(decode_frame::<Request>(&longer).is_err());
    }
}
