//! What one command came to.

use bincode::{Decode, Encode};

use crate::codec::{self, DecodeError, Kind};
use crate::entity::{Member, Room, User};
use crate::event::Event;
use crate::ids::{Epoch, Revision, Seq};
use crate::rejection::Rejection;

/// What one command came to. Travels back to the node that was asked, so it is encodable.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Outcome {
    pub response: Result<Response, Rejection>,
    /// The answer was given before: same idempotency key, or same client_id.
    pub replayed: bool,
    pub epoch: Epoch,
    /// The store's revision after this command.
    pub revision: Revision,
    /// For the watchers on this node. Not sent to other nodes: each node has its own.
    pub events: Vec<Event>,
}

/// Tags are never reused.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Response {
    User(User),
    Room(Room),
    Member {
        member: Member,
        created: bool,
    },
    Deleted,
    Sent {
        room: String,
        seq: Seq,
        rev: Revision,
        sent_at_ms: u64,
        sender: String,
    },
    SentBatch {
        room: String,
        /// In the order of the batch; a message that was already there has its first seq.
        seqs: Vec<Seq>,
        rev: Revision,
    },
    VersionRaised {
        version: u32,
    },
}

/// All of an outcome but its events.
#[derive(Decode)]
struct Travelling {
    response: Result<Response, Rejection>,
    replayed: bool,
    epoch: Epoch,
    revision: Revision,
}

/// The same, borrowed.
#[derive(Encode)]
struct TravellingRef<'a> {
    response: &'a Result<Response, Rejection>,
    replayed: bool,
    epoch: Epoch,
    revision: Revision,
}

impl Outcome {
    const VERSION: u8 = 1;

    /// Without the events.
    pub fn encode(&self) -> Vec<u8> {
        let travelling = TravellingRef {
            response: &self.response,
            replayed: self.replayed,
            epoch: self.epoch,
            revision: self.revision,
        };
        codec::encode(Kind::Outcome, Self::VERSION, &travelling)
    }

    /// An outcome without events.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let Travelling {
            response,
            replayed,
            epoch,
            revision,
        } = codec::decode(Kind::Outcome, Self::VERSION, bytes)?;
        Ok(Outcome {
            response,
            replayed,
            epoch,
            revision,
            events: Vec::new(),
        })
    }
}
