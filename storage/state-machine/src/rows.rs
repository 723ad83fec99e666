//! The stored values, each with its kind and version in front (see [`crate::codec`]). They hold ids
//! where entities hold names. A change of a struct needs a new version of its row, and a decoder
//! for the old one; the golden bytes below fail otherwise.

mod borrowed;

use bincode::{Decode, Encode};

pub(crate) use self::borrowed::MessageRowRef;
use crate::codec::{self, DecodeError, Kind};
use crate::command::Home;
use crate::entity::{Member, Message, Role, Room, RoomKind, User};
use crate::event::EventBody;
use crate::ids::{Epoch, FencingToken, LockId, Revision, RoomId, RunId, Seq, TokenHash, UserId, WaiterId};
use crate::rejection::Rejection;

/// A stored value.
pub(crate) trait Row: Encode + Decode<()> {
    const KIND: Kind;
    const VERSION: u8;

    fn to_bytes(&self) -> Vec<u8> {
        codec::encode(Self::KIND, Self::VERSION, self)
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(Self::KIND, Self::VERSION, bytes)
    }
}

macro_rules! rows {
    ($($row:ident = $version:literal),* $(,)?) => {$(
        impl Row for $row {
            const KIND: Kind = Kind::$row;
            const VERSION: u8 = $version;
        }
    )*};
}

rows! {
    SystemRow = 1,
    UserRow = 1,
    UserNameRow = 1,
    RoomRow = 1,
    RoomNameRow = 1,
    RoomTailRow = 1,
    MemberRow = 1,
    UserRoomRow = 1,
    MessageRow = 1,
    ClientIdRow = 1,
    FeedRow = 1,
    DedupRow = 1,
    DedupExpiryRow = 1,
    VersionRow = 1,
    TimersRow = 1,
    ExpiryRow = 1,
    MessageRevisionRow = 1,
    SessionRow = 1,
    UserSessionRow = 1,
    LockRow = 1,
    LockNameRow = 1,
    WaiterRow = 1,
    HomeWaiterRow = 1,
}

/// What every change writes: the revision, and beside it all that would else be a row of its own.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct SystemRow {
    pub(crate) epoch: Epoch,
    pub(crate) revision: Revision,
    /// The replicated clock when something was last written; it never goes back.
    pub(crate) elapsed_ms: u64,
    pub(crate) next_user: UserId,
    pub(crate) next_room: RoomId,
    /// How many dedup records there are.
    pub(crate) dedup_records: u64,
    /// No record expires before; none while there are no records. Tells without a scan that there
    /// is nothing to sweep, and lets the sweep begin behind what is already gone.
    pub(crate) dedup_oldest_ms: Option<u64>,
}

impl Default for SystemRow {
    /// A store in which nothing has happened.
    fn default() -> Self {
        Self {
            epoch: Epoch::FIRST,
            revision: Revision(0),
            elapsed_ms: 0,
            next_user: UserId(1),
            next_room: RoomId(1),
            dedup_records: 0,
            dedup_oldest_ms: None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct UserRow {
    pub(crate) name: String,
    pub(crate) display_name: String,
    pub(crate) email: Option<String>,
    pub(crate) password_hash: Option<String>,
    pub(crate) attributes: Option<String>,
    pub(crate) created_at_ms: u64,
    pub(crate) rev: Revision,
}

impl UserRow {
    pub(crate) fn entity(self, id: UserId) -> User {
        User {
            user: self.name,
            id,
            display_name: self.display_name,
            email: self.email,
            attributes: self.attributes,
            created_at_ms: self.created_at_ms,
            rev: self.rev,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(crate) struct UserNameRow {
    pub(crate) user: UserId,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct RoomRow {
    pub(crate) name: String,
    pub(crate) kind: RoomKind,
    pub(crate) title: Option<String>,
    pub(crate) attributes: Option<String>,
    pub(crate) created_at_ms: u64,
    pub(crate) created_by: UserId,
    pub(crate) created_by_name: String,
}

impl RoomRow {
    pub(crate) fn entity(self, id: RoomId, tail: &RoomTailRow) -> Room {
        Room {
            room: self.name,
            id,
            kind: self.kind,
            title: self.title,
            attributes: self.attributes,
            created_at_ms: self.created_at_ms,
            created_by: self.created_by_name,
            first_seq: if tail.is_empty() { Seq(0) } else { tail.first_seq },
            last_seq: tail.last_seq,
            member_count: tail.members,
            rev: tail.rev,
        }
    }
}

/// What a send needs to know of a room, so that it reads neither title nor attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(crate) struct RoomNameRow {
    pub(crate) room: RoomId,
    pub(crate) kind: RoomKind,
    pub(crate) created_rev: Revision,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(crate) struct RoomTailRow {
    /// The floor: no message before it is kept. 1 until something is cut off.
    pub(crate) first_seq: Seq,
    pub(crate) last_seq: Seq,
    /// The largest sent_at of all messages so far.
    pub(crate) sent_at_max_ms: u64,
    pub(crate) members: u64,
    /// How many of the members are owners, so that the last one is known without a scan.
    pub(crate) owners: u64,
    /// The last change of anything that the room shows, its last_seq and member_count included.
    pub(crate) rev: Revision,
}

impl RoomTailRow {
    pub(crate) fn is_empty(&self) -> bool {
        self.last_seq < self.first_seq
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(crate) struct MemberRow {
    pub(crate) user: UserId,
    pub(crate) role: Role,
    pub(crate) joined_at_ms: u64,
    pub(crate) joined_seq: Seq,
    pub(crate) rev: Revision,
}

impl MemberRow {
    pub(crate) fn entity(&self, user: String) -> Member {
        Member {
            user,
            role: self.role,
            joined_at_ms: self.joined_at_ms,
            joined_seq: self.joined_seq,
            rev: self.rev,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(crate) struct UserRoomRow {
    pub(crate) room: RoomId,
}

/// The only place that holds a message's content. A later version adds a salted digest of the
/// content and the hash of the row before.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct MessageRow {
    pub(crate) head: MessageHead,
    /// The last change of this message.
    pub(crate) rev: Revision,
    pub(crate) sent_at_ms: u64,
    pub(crate) sender: UserId,
    /// The sender's name when he sent: it stays when he is deleted.
    pub(crate) sender_name: String,
    pub(crate) kind: String,
    pub(crate) client_id: Option<String>,
    pub(crate) reply_to: Option<Seq>,
    pub(crate) attributes: Option<String>,
    pub(crate) text: Option<String>,
    pub(crate) edited_at_ms: Option<u64>,
    pub(crate) redacted_at_ms: Option<u64>,
}

/// What searches look at; the first fields of the row. Both grow, or stay, from seq to seq.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(crate) struct MessageHead {
    /// The change that made the message.
    pub(crate) created_rev: Revision,
    /// The largest sent_at of all messages up to this one.
    pub(crate) sent_at_max_ms: u64,
}

impl MessageHead {
    /// Reads no more of a message's row than its head.
    pub(crate) fn decode(row: &[u8]) -> Result<Self, DecodeError> {
        codec::decode_prefix(MessageRow::KIND, MessageRow::VERSION, row).map(|(head, _)| head)
    }
}

impl MessageRow {
    pub(crate) fn entity(self, room: String, seq: Seq) -> Message {
        Message {
            room,
            seq,
            rev: self.rev,
            sender: self.sender_name,
            sent_at_ms: self.sent_at_ms,
            kind: self.kind,
            text: self.text,
            client_id: self.client_id,
            reply_to: self.reply_to,
            attributes: self.attributes,
            edited_at_ms: self.edited_at_ms,
            redacted_at_ms: self.redacted_at_ms,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(crate) struct ClientIdRow {
    pub(crate) seq: Seq,
}

/// An event that is not a message. Deletion of the room is none: its feed goes with it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct FeedRow {
    pub(crate) body: EventBody,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct DedupRow {
    pub(crate) fingerprint: u128,
    /// On the replicated clock.
    pub(crate) expires_ms: u64,
    pub(crate) decided: Decided,
}

/// What was decided under an idempotency key, by reference: ids, seqs, revisions, times and codes.
/// Names and texts of the answer are in the command, which comes again with the key. Tags are
/// never reused.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Decided {
    UserCreated {
        id: UserId,
        rev: Revision,
        at_ms: u64,
    },
    UserUpdated {
        id: UserId,
        rev: Revision,
    },
    RoomCreated {
        id: RoomId,
        rev: Revision,
        at_ms: u64,
        members: u64,
    },
    RoomUpdated {
        id: RoomId,
        rev: Revision,
    },
    Member {
        role: Role,
        joined_at_ms: u64,
        joined_seq: Seq,
        rev: Revision,
        created: bool,
    },
    Deleted,
    Sent {
        seq: Seq,
        rev: Revision,
        sent_at_ms: u64,
    },
    /// Runs of seqs (first, count): a batch without duplicates is one.
    SentBatch {
        runs: Vec<(Seq, u64)>,
        rev: Revision,
    },
    Refused(Rejection),
    VersionRaised,
    MessageEdited {
        rev: Revision,
    },
    /// Becomes `LockGranted` or `Refused` when the wait ends.
    LockWaiting {
        lock: LockId,
        since: Revision,
    },
    LockGranted {
        token: FencingToken,
        expires_ms: u64,
    },
    /// The owner is not in the command.
    LockRenewed {
        owner: String,
        token: FencingToken,
        expires_ms: u64,
    },
}

/// A place in the queue: all it says is in the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(crate) struct DedupExpiryRow {}

/// The cluster version (see [`crate::version`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(crate) struct VersionRow {
    pub(crate) version: u32,
}

/// What is said of all that expires, besides idempotency keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub(crate) struct TimersRow {
    /// Nothing expires before; none while there is nothing. Tells without a scan that there is nothing to
    /// sweep, and lets the sweep begin behind what is already gone.
    pub(crate) next_ms: Option<u64>,
    /// How many locks there are, held or not.
    pub(crate) locks: u64,
    pub(crate) sessions: u64,
}

/// A place in the queue: all it says is in the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(crate) struct ExpiryRow {}

/// An earlier text.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct MessageRevisionRow {
    /// Counts the message's earlier texts from 1, so that the last one tells how many there are.
    pub(crate) number: u32,
    pub(crate) text: String,
    /// When it was sent, or edited to be this.
    pub(crate) at_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct SessionRow {
    pub(crate) user: UserId,
    /// The change that began it.
    pub(crate) began: Revision,
    pub(crate) device: Option<String>,
    pub(crate) created_at_ms: u64,
    /// On the replicated clock.
    pub(crate) expires_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(crate) struct UserSessionRow {
    pub(crate) token: TokenHash,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct LockRow {
    pub(crate) name: String,
    pub(crate) rev: Revision,
    pub(crate) last_token: FencingToken,
    pub(crate) holder: Option<HolderRow>,
    pub(crate) waiters: u32,
    /// Nobody who waits began before: lets the search for whose turn it is begin behind those who are gone.
    pub(crate) served: Revision,
    /// Its place in the queue of expiry: when the holder's time is over, or the free lock is forgotten.
    pub(crate) timer_ms: u64,
}

/// Part of a lock's row.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct HolderRow {
    pub(crate) owner: String,
    pub(crate) caller: UserId,
    pub(crate) token: FencingToken,
    /// The change with which he asked.
    pub(crate) since: Revision,
    /// Who asked, and may not have heard of the grant; nobody once he asked again under his idempotency key.
    pub(crate) waiter: WaiterId,
    /// What it was taken with.
    pub(crate) ttl_ms: u64,
    /// On the replicated clock.
    pub(crate) expires_ms: u64,
    pub(crate) data: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(crate) struct LockNameRow {
    pub(crate) lock: LockId,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct WaiterRow {
    pub(crate) owner: String,
    pub(crate) caller: UserId,
    /// Who asked; nobody once he asked again under his idempotency key.
    pub(crate) waiter: WaiterId,
    pub(crate) home: Home,
    pub(crate) ttl_ms: u64,
    /// On the replicated clock, as the deadline.
    pub(crate) asked_ms: u64,
    pub(crate) deadline_ms: u64,
    pub(crate) data: Option<String>,
    /// Under which idempotency key of the caller he asked: the record says that he waits.
    pub(crate) key: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(crate) struct HomeWaiterRow {
    pub(crate) run: RunId,
}

#[cfg(test)]
mod tests;
