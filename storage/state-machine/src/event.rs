//! What a committed change tells the watchers of a room. Content lives once, in the message row:
//! events carry references.

use bincode::{Decode, Encode};

use crate::ids::{Revision, RoomId, Seq, SpaceId};

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
}
