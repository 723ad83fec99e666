//! What a committed change tells the watchers of a room. Content lives once, in the message row:
//! events carry references.

use bincode::{Decode, Encode};

use crate::ids::{LockId, Revision, RoomId, Seq, SpaceId, TokenHash};

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Event {
    pub space: SpaceId,
    pub room: RoomId,
    pub rev: Revision,
    pub body: EventBody,
}

/// Tags are never reused.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum EventBody {
    /// Messages first..=last were sent.
    Messages { first: Seq, last: Seq },
    /// A member came, went (`role` none) or changed his role.
    Member {
        user: String,
        role: Option<crate::entity::Role>,
    },
    /// The room was created or its title or attributes changed.
    Room,
    /// The room is gone; its stream ends.
    RoomDeleted,
    /// The message has another text.
    Edited { seq: Seq },
    /// The message's content is gone.
    Redacted { seq: Seq },
}

/// What somebody on a node can wait for. Named by a command's outcome on every node, never stored or sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// Something in the room may have changed.
    Room(RoomId),
    /// The lock has another holder, or none, or somebody no longer waits for it.
    Lock(LockId),
    /// The session has ended.
    Session(TokenHash),
}
