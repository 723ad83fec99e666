//! What one command came to.

use bincode::{Decode, Encode};

use crate::codec::{self, DecodeError, Kind};
use crate::entity::{Member, Message, Room, User};
use crate::event::{Event, Topic};
use crate::ids::{Epoch, FencingToken, LockId, Revision, Seq};
use crate::rejection::Rejection;

/// What one command came to. Travels back to the node that was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub response: Result<Response, Rejection>,
    /// The answer was given before: same idempotency key, or same client_id.
    pub replayed: bool,
    pub epoch: Epoch,
    /// The store's revision after this command.
    pub revision: Revision,
    /// For the watchers on this node. Not sent to other nodes: each node has its own.
    pub events: Vec<Event>,
    /// What else watchers wait for. Not sent either.
    pub topics: Vec<Topic>,
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
    /// The message as it is after the edit.
    Message(Box<Message>),
    SessionCreated {
        user: String,
        /// For showing.
        expires_at_ms: u64,
    },
    /// The lock is held, by whoever asked: granted, renewed, or granted before (replayed).
    LockHeld {
        owner: String,
        token: FencingToken,
        /// What is left of its ttl by the clock of the entry; 0 if it is lost already (replayed).
        expires_in_ms: u64,
    },
    /// Watch [`Topic::Lock`] and ask [`crate::query::QueryBody::LockWait`].
    LockWaiting {
        lock: LockId,
        /// Names the wait.
        since: Revision,
    },
    /// Swept, dropped or abandoned what one command may; `more` is left.
    Swept {
        more: bool,
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

    /// All that watchers are woken for.
    pub fn topics(&self) -> impl Iterator<Item = Topic> {
        let rooms = self.events.iter().map(|event| Topic::Room(event.room));
        rooms.chain(self.topics.iter().copied())
    }

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
            topics: Vec::new(),
        })
    }
}
