//! What apply and query hand out: users, rooms, members and messages, with names resolved.
//! How they are stored is private to `apply` (versioned rows, ids instead of names).

use bincode::{Decode, Encode};

use crate::ids::{FencingToken, Revision, RoomId, Seq, UserId};

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

/// A message as it lies somewhere else, in the state or in a [`Message`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageRef<'a> {
    pub room: &'a str,
    pub seq: Seq,
    pub rev: Revision,
    pub sender: &'a str,
    pub sent_at_ms: u64,
    pub kind: &'a str,
    pub text: Option<&'a str>,
    pub client_id: Option<&'a str>,
    pub reply_to: Option<Seq>,
    pub attributes: Option<&'a str>,
    pub edited_at_ms: Option<u64>,
    pub redacted_at_ms: Option<u64>,
}

impl MessageRef<'_> {
    pub fn to_message(&self) -> Message {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Message {
            room: self.room.to_owned(),
            seq: self.seq,
            rev: self.rev,
            sender: self.sender.to_owned(),
            sent_at_ms: self.sent_at_ms,
            kind: self.kind.to_owned(),
            text: owned(self.text),
            client_id: owned(self.client_id),
            reply_to: self.reply_to,
            attributes: owned(self.attributes),
            edited_at_ms: self.edited_at_ms,
            redacted_at_ms: self.redacted_at_ms,
        }
    }
}

impl Message {
    pub fn borrowed(&self) -> MessageRef<'_> {
        MessageRef {
            room: &self.room,
            seq: self.seq,
            rev: self.rev,
            sender: &self.sender,
            sent_at_ms: self.sent_at_ms,
            kind: &self.kind,
            text: self.text.as_deref(),
            client_id: self.client_id.as_deref(),
            reply_to: self.reply_to,
            attributes: self.attributes.as_deref(),
            edited_at_ms: self.edited_at_ms,
            redacted_at_ms: self.redacted_at_ms,
        }
    }
}

/// An earlier text of a message.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct MessageRevision {
    /// The change that brought the text.
    pub rev: Revision,
    pub text: String,
    /// When it was sent, or edited to be this.
    pub at_ms: u64,
}

/// A lock as it is shown. Times are those of the replicated clock.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Lock {
    pub lock: String,
    pub holder: Option<LockHolder>,
    /// First come, first served; at most [`crate::limits::LOCK_WAITERS_SHOWN_MAX`] of them.
    pub queue: Vec<LockWaiter>,
    /// How many wait, shown or not.
    pub waiters: u32,
    pub last_token: FencingToken,
    pub rev: Revision,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct LockHolder {
    pub owner: String,
    pub token: FencingToken,
    pub expires_ms: u64,
    /// A JSON value as text.
    pub data: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct LockWaiter {
    pub owner: String,
    /// Since when.
    pub asked_ms: u64,
}

/// What became of somebody who waits for a lock.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum LockWait {
    Waiting,
    Granted {
        token: FencingToken,
        expires_ms: u64,
    },
    /// His time was over, he was given up, or what he was granted is gone again.
    Over,
}
