//! What goes into the log. An entry packs many commands; each travels in an envelope that says who
//! asks and under which conditions, because that is decided in apply and nowhere else.

use bincode::{BorrowDecode, Decode, Encode};

use crate::codec::{self, DecodeError, Kind};
use crate::entity::{Role, RoomKind};
use crate::ids::{FencingToken, Revision, RunId, Seq, SpaceId, TokenHash, WaiterId};

/// The two clocks of an entry, stamped by the leader that proposes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct EntryMeta {
    /// Replicated monotonic time; governs every ttl. Apply never lets it go back.
    pub elapsed_ms: u64,
    /// The leader's wall clock; for showing.
    pub wall_ms: u64,
}

/// One Raft entry: commands that were already encoded (see [`crate::codec`]) where they arrived,
/// so that packing and forwarding copy bytes and encode nothing twice.
#[derive(Debug, Clone, PartialEq, Eq, Encode, BorrowDecode)]
pub struct PackedEntry<'a> {
    pub meta: EntryMeta,
    /// Each is an encoded [`Envelope`].
    pub commands: Vec<&'a [u8]>,
}

impl<'a> PackedEntry<'a> {
    const VERSION: u8 = 1;

    pub fn encode(&self) -> Vec<u8> {
        /// Of a command's length, and of all that is no command.
        const OVERHEAD_BYTES: usize = 16;
        let bytes: usize = self.commands.iter().map(|command| command.len() + OVERHEAD_BYTES).sum();
        codec::encode_of_about(2 * OVERHEAD_BYTES + bytes, Kind::PackedEntry, Self::VERSION, self)
    }

    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        codec::borrow_decode(Kind::PackedEntry, Self::VERSION, bytes)
    }

    /// An entry that changes nothing and marks a place in the log.
    pub fn mark(meta: EntryMeta) -> Self {
        Self {
            meta,
            commands: Vec::new(),
        }
    }

    /// Whether encoded bytes are a mark, without decoding commands.
    pub fn is_mark(bytes: &[u8]) -> Result<bool, DecodeError> {
        let ((_, commands), _) = codec::decode_prefix::<(EntryMeta, u64)>(Kind::PackedEntry, Self::VERSION, bytes)?;
        Ok(commands == 0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Envelope {
    pub space: SpaceId,
    pub caller: Caller,
    /// `X-Request-Id`, for logs and audit.
    pub request_id: String,
    pub idempotency: Option<Idempotency>,
    pub conditions: Conditions,
    pub command: Command,
}

impl Envelope {
    const VERSION: u8 = 1;

    pub fn encode(&self) -> Vec<u8> {
        codec::encode(Kind::Envelope, Self::VERSION, self)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(Kind::Envelope, Self::VERSION, bytes)
    }
}

/// Who asks. Resolved in apply, so that a user who was made on another node a moment ago is known.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Caller {
    Root,
    /// A user's name (open mode). Unknown: `Unauthenticated`.
    User(String),
    /// Whoever signed in and got this token. Unknown, expired or revoked: `Unauthenticated`.
    Session(TokenHash),
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Idempotency {
    /// 1–128 visible ASCII characters. Its scope is the caller.
    pub key: String,
    /// A keyed hash of method, path, query, conditions and body.
    pub fingerprint: u128,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct Conditions {
    /// `If-Match: "rev"`.
    pub if_match: Option<Revision>,
    /// `If-None-Match: *`: the entity must not exist.
    pub if_none_match: bool,
    pub if_lock: Option<IfLock>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct IfLock {
    pub name: String,
    pub token: FencingToken,
}

/// A field of a merge patch (RFC 7396).
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub enum Patch<T> {
    #[default]
    Keep,
    Remove,
    Set(T),
}

/// Tags are never reused: new commands go to the end.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Command {
    CreateUser {
        user: String,
        display_name: Option<String>,
        email: Option<String>,
        /// An argon2id hash in PHC form; the password itself never enters the log.
        password_hash: Option<String>,
        /// A JSON object as text.
        attributes: Option<String>,
    },
    UpdateUser {
        user: String,
        display_name: Patch<String>,
        email: Patch<String>,
        password_hash: Patch<String>,
        /// A merge patch for the attributes: `Set` holds a JSON object as text that is merged in.
        attributes: Patch<String>,
    },
    DeleteUser {
        user: String,
    },
    CreateRoom {
        room: String,
        kind: RoomKind,
        title: Option<String>,
        members: Vec<String>,
        attributes: Option<String>,
    },
    UpdateRoom {
        room: String,
        title: Patch<String>,
        attributes: Patch<String>,
    },
    DeleteRoom {
        room: String,
    },
    PutMember {
        room: String,
        user: String,
        /// None: `member` for a new member, else what he is.
        role: Option<Role>,
    },
    RemoveMember {
        room: String,
        user: String,
    },
    /// One message, or a batch that is applied whole or not at all. A batch is one change: one rev.
    Send {
        room: String,
        messages: Vec<NewMessage>,
        /// Answer with [`crate::apply::Response::SentBatch`] even for one message.
        batch: bool,
    },
    /// Raises the cluster version (see [`crate::version`]). For root: it is the leader that proposes it.
    RaiseVersion {
        to: u32,
    },
    /// Another text for a message; the earlier one stays readable among its revisions.
    EditMessage {
        room: String,
        seq: Seq,
        text: String,
    },
    /// Takes a message's content away, that of its revisions too; the seq stays.
    RedactMessage {
        room: String,
        seq: Seq,
    },
    /// Signs a user in. For root: the node has verified the password.
    CreateSession {
        user: String,
        /// What the password was verified against. Another one by now: `Unauthenticated`.
        password_hash: String,
        token: TokenHash,
        device: Option<String>,
        /// On the replicated clock.
        ttl_ms: u64,
    },
    /// Signs the caller out: the session that he asks with.
    EndSession,
    AcquireLock {
        lock: String,
        owner: String,
        /// Counted from the grant, on the replicated clock.
        ttl_ms: u64,
        /// 0: now or never.
        wait_ms: u64,
        /// A JSON value as text, for those who look at the lock.
        data: Option<String>,
        waiter: WaiterId,
        home: Home,
    },
    RenewLock {
        lock: String,
        token: FencingToken,
        /// None: the one that it was taken with.
        ttl_ms: Option<u64>,
    },
    ReleaseLock {
        lock: String,
        token: FencingToken,
    },
    /// Whoever asked under this id is gone: he no longer waits, and gives back what he has been granted
    /// without hearing of it. For root: the node at which he waited.
    AbandonLock {
        lock: String,
        waiter: WaiterId,
        /// Since when he waits, if the node has heard that: then he need not be looked for.
        since: Option<Revision>,
    },
    /// Those who waited at this node, except at this run of it, wait no more. For root: the leader, when
    /// the node is gone, and the node itself when it is back.
    DropWaiters {
        node: u64,
        except: Option<RunId>,
    },
    /// Sweeps what has expired: locks, waiters and sessions, a bounded number. For root: the leader. Whether
    /// something has expired does not depend on it.
    Tick,
}

/// Where somebody waits for a lock: a node, and which run of its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Home {
    pub node: u64,
    pub run: RunId,
}

impl Command {
    /// What is decided can be answered again. A session's token is told once, to whoever signed in, and who has
    /// signed out can ask nothing again; and what the nodes themselves propose, they propose until it is so.
    pub fn takes_key(&self) -> bool {
        !matches!(
            self,
            Command::CreateSession { .. }
                | Command::EndSession
                | Command::AbandonLock { .. }
                | Command::DropWaiters { .. }
                | Command::Tick
        )
    }

    /// Touches hundreds or thousands of rows, however short it is itself.
    pub fn may_take_long(&self) -> bool {
        matches!(
            self,
            Command::DeleteUser { .. }
                | Command::CreateRoom { .. }
                | Command::DeleteRoom { .. }
                | Command::DropWaiters { .. }
                | Command::Tick
        )
    }

    /// Gives space back, or takes none: goes on while the disk is too full for anything else.
    pub fn makes_room(&self) -> bool {
        match self {
            Command::DeleteUser { .. }
            | Command::DeleteRoom { .. }
            | Command::RemoveMember { .. }
            | Command::RedactMessage { .. }
            | Command::EndSession
            | Command::ReleaseLock { .. }
            // Writes over what is there: a full disk must not cost those who hold locks what they hold.
            | Command::RenewLock { .. }
            | Command::AbandonLock { .. }
            | Command::DropWaiters { .. }
            | Command::Tick => true,
            Command::CreateUser { .. }
            | Command::UpdateUser { .. }
            | Command::CreateRoom { .. }
            | Command::UpdateRoom { .. }
            | Command::PutMember { .. }
            | Command::Send { .. }
            | Command::RaiseVersion { .. }
            | Command::EditMessage { .. }
            | Command::CreateSession { .. }
            | Command::AcquireLock { .. } => false,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct NewMessage {
    pub text: String,
    /// 1–128 bytes; deduplicates per sender and room.
    pub client_id: Option<String>,
    /// None: `text`.
    pub kind: Option<String>,
    pub reply_to: Option<Seq>,
    /// A JSON object as text.
    pub attributes: Option<String>,
    /// Root only, for imports; the sender must exist (or be `root`).
    pub sender: Option<String>,
    /// Root only, for imports.
    pub sent_at_ms: Option<u64>,
}
