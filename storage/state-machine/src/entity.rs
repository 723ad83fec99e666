//! What apply and query hand out: users, rooms, members and messages, with names resolved.
//! How they are stored is private to `apply` (versioned rows, ids instead of names).

use bincode::{Decode, Encode};

use crate::ids::{Revision, RoomId, Seq, UserId};

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct User {
    pub user: String,
    pub id: UserId,
    pub display_name: String,
    pub email: Option<String>,
    /// A JSON object as text, or none.
    pub attributes: Option<String>,
    /// Milliseconds since the epoch, by the leader's wall clock: for showing only.
    pub created_at_ms: u64,
    pub rev: Revision,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum RoomKind {
    Public,
    Group,
    Direct,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Room {
    pub room: String,
    pub id: RoomId,
    pub kind: RoomKind,
    pub title: Option<String>,
    /// A JSON object as text, or none.
    pub attributes: Option<String>,
    pub created_at_ms: u64,
    /// A user's name, or `root`.
    pub created_by: String,
    /// The first seq that is kept; 0 while the room is empty.
    pub first_seq: Seq,
    pub last_seq: Seq,
    pub member_count: u64,
    pub rev: Revision,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Role {
    Member,
    Moderator,
    Owner,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Member {
    pub user: String,
    pub role: Role,
    pub joined_at_ms: u64,
    /// The room's last_seq when the user joined.
    pub joined_seq: Seq,
    pub rev: Revision,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Message {
    pub room: String,
    pub seq: Seq,
    pub rev: Revision,
    /// A user's name, or `root`. A deleted user's messages keep the name he had.
    pub sender: String,
    pub sent_at_ms: u64,
    pub kind: String,
    /// Absent after a redaction.
    pub text: Option<String>,
    pub client_id: Option<String>,
    pub reply_to: Option<Seq>,
    /// A JSON object as text, or none.
    pub attributes: Option<String>,
    pub edited_at_ms: Option<u64>,
    pub redacted_at_ms: Option<u64>,
}
