//! The JSON bodies of the contract (docs/API.md), shared by the server and the client.
//! Optional fields are absent, never null. Requests refuse unknown fields; answers may gain some.

pub mod schema;
pub mod socket;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

/// Attributes: any JSON object.
pub type Attributes = serde_json::Map<String, serde_json::Value>;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct User {
    #[schemars(with = "schema::Name")]
    pub user: String,
    pub id: u64,
    #[schemars(with = "schema::DisplayName")]
    pub display_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "schema::Email")]
    pub email: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "schema::Attributes")]
    pub attributes: Option<Attributes>,
    #[schemars(with = "schema::Time")]
    pub created_at: String,
    #[schemars(with = "schema::Rev")]
    pub rev: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    #[schemars(with = "schema::Name")]
    pub user: String,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "schema::DisplayName")]
    pub display_name: Option<String>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "schema::Email")]
    pub email: Option<String>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "schema::Password")]
    pub password: Option<String>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "schema::Attributes")]
    pub attributes: Option<Attributes>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct UserList {
    pub users: Vec<User>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", try_from = "String")]
#[schemars(!try_from)]
pub enum RoomKind {
    Public,
    Group,
    Direct,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Room {
    #[schemars(with = "schema::Name")]
    pub room: String,
    pub id: u64,
    pub kind: RoomKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "schema::Title")]
    pub title: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "schema::Attributes")]
    pub attributes: Option<Attributes>,
    #[schemars(with = "schema::Time")]
    pub created_at: String,
    #[schemars(with = "schema::Name")]
    pub created_by: String,
    #[schemars(with = "schema::Seq")]
    pub first_seq: u64,
    #[schemars(with = "schema::Seq")]
    pub last_seq: u64,
    pub member_count: u64,
    #[schemars(with = "schema::Rev")]
    pub rev: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRoom {
    #[schemars(with = "schema::Name")]
    pub room: String,
    pub kind: RoomKind,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "schema::Title")]
    pub title: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<schema::Name>", length(max = 1000))]
    pub members: Vec<String>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "schema::Attributes")]
    pub attributes: Option<Attributes>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RoomList {
    pub rooms: Vec<Room>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", try_from = "String")]
#[schemars(!try_from)]
pub enum Role {
    Owner,
    Moderator,
    Member,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Member {
    #[schemars(with = "schema::Name")]
    pub user: String,
    pub role: Role,
    #[schemars(with = "schema::Time")]
    pub joined_at: String,
    #[schemars(with = "schema::Seq")]
    pub joined_seq: u64,
    #[schemars(with = "schema::Rev")]
    pub rev: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PutMember {
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MemberList {
    pub members: Vec<Member>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewMessage {
    #[schemars(with = "schema::Text")]
    pub text: String,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "schema::ClientId")]
    pub client_id: Option<String>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "schema::Kind")]
    pub kind: Option<String>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "schema::MessageSeq")]
    pub reply_to: Option<u64>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "schema::Attributes")]
    pub attributes: Option<Attributes>,
}

/// A message of a batch. `sender` and `sent_at` are for root's imports.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchMessage {
    #[schemars(with = "schema::Text")]
    pub text: String,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "schema::ClientId")]
    pub client_id: Option<String>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "schema::Kind")]
    pub kind: Option<String>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "schema::MessageSeq")]
    pub reply_to: Option<u64>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "schema::Attributes")]
    pub attributes: Option<Attributes>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "schema::Name")]
    pub sender: Option<String>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "schema::GivenTime")]
    pub sent_at: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    #[schemars(length(min = 1, max = 1000))]
    pub messages: Vec<BatchMessage>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Sent {
    #[schemars(with = "schema::Name")]
    pub room: String,
    #[schemars(with = "schema::Seq")]
    pub seq: u64,
    #[schemars(with = "schema::Rev")]
    pub rev: u64,
    #[schemars(with = "schema::Time")]
    pub sent_at: String,
    #[schemars(with = "schema::Name")]
    pub sender: String,
    pub status: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SentBatch {
    #[schemars(with = "schema::Name")]
    pub room: String,
    #[schemars(with = "schema::Seq")]
    pub first_seq: u64,
    #[schemars(with = "schema::Seq")]
    pub last_seq: u64,
    #[schemars(with = "Vec<schema::Seq>")]
    pub seqs: Vec<u64>,
    #[schemars(with = "schema::Rev")]
    pub rev: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Message {
    #[schemars(with = "schema::Name")]
    pub room: String,
    #[schemars(with = "schema::Seq")]
    pub seq: u64,
    #[schemars(with = "schema::Rev")]
    pub rev: u64,
    #[schemars(with = "schema::Name")]
    pub sender: String,
    #[schemars(with = "schema::Time")]
    pub sent_at: String,
    #[schemars(with = "schema::Kind")]
    pub kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "schema::Text")]
    pub text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "schema::ClientId")]
    pub client_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "schema::MessageSeq")]
    pub reply_to: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "schema::Time")]
    pub edited_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "schema::Time")]
    pub redacted_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "schema::Attributes")]
    pub attributes: Option<Attributes>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MessagePage {
    pub messages: Vec<Message>,
    #[schemars(with = "schema::Seq")]
    pub first_seq: u64,
    #[schemars(with = "schema::Seq")]
    pub last_seq: u64,
    pub more_before: bool,
    pub more_after: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Cluster {
    pub cluster_id: String,
    pub version: u32,
    pub nodes: Vec<ClusterNode>,
    /// Absent while no leader is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader: Option<u64>,
    pub term: u64,
    pub failures_tolerated: u64,
    /// Changes of the membership under way, and those that have lately ended.
    pub changes: Vec<Change>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ClusterNode {
    pub id: u64,
    pub client_url: String,
    pub peer_addr: String,
    /// `voter` or `learner`.
    pub role: String,
    /// `leader`, `follower`, `candidate` or `unreachable`.
    pub state: String,
    pub last_log: u64,
    pub applied: u64,
    pub lag: u64,
}

/// A node to add, or to put in the place of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewNode {
    #[schemars(with = "schema::NodeId")]
    pub id: u64,
    /// `http://host:port`
    #[schemars(with = "schema::ClientUrl")]
    pub client_url: String,
    /// `host:port`
    #[schemars(with = "schema::PeerAddr")]
    pub peer_addr: String,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "schema::NodeId")]
    pub replaces: Option<u64>,
}

/// A change of the membership.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    pub kind: ChangeKind,
    pub node: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaces: Option<u64>,
    pub step: ChangeStep,
    /// In words: what it waits for, how far it is, or why it failed.
    pub detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    Add,
    Replace,
    Remove,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChangeStep {
    Contacting,
    CatchingUp,
    Promoting,
    Done,
    Failed,
}

/// Whom to hand leadership to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Transfer {
    /// None: the voter whose log is furthest.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "schema::NodeId")]
    pub to: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NewLeader {
    pub leader: u64,
}

/// The hashes of all nodes' states after one entry of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Verification {
    /// Log index of that entry.
    pub index: u64,
    pub revision: u64,
    /// Every node has given a hash, and all are the same.
    pub agree: bool,
    pub nodes: Vec<NodeHash>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeHash {
    pub id: u64,
    /// 32 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// Why there is no hash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Its hash is not the one that most nodes have.
    pub differs: bool,
}

/// RFC 9457, as every error of the API is written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    #[serde(rename = "type")]
    pub type_: String,
    pub title: String,
    pub status: u16,
    pub detail: String,
    pub code: String,
    pub request_id: String,
    pub retryable: bool,
    /// `not_applied` or `unknown`.
    pub outcome: String,
}

/// Another text for a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MessageEdit {
    #[schemars(with = "schema::Text")]
    pub text: String,
}

/// An earlier text of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MessageRevision {
    /// The change that brought the text.
    pub rev: u64,
    pub text: String,
    /// When it was sent, or edited to be this.
    pub at: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RevisionList {
    /// Oldest first.
    pub revisions: Vec<MessageRevision>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// The `edit` event of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edited {
    pub room: String,
    pub seq: u64,
    /// Of this edit; the message may have been edited again since.
    pub rev: u64,
    /// The message's text when the event is delivered; absent if it was redacted since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// When the message was last edited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edited_at: Option<String>,
}

/// The `redact` event of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redacted {
    pub room: String,
    pub seq: u64,
    pub rev: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redacted_at: Option<String>,
}

/// Whoever signs in.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSession {
    #[schemars(with = "schema::Name")]
    pub user: String,
    #[schemars(with = "schema::Password")]
    pub password: String,
    /// What the session is for, in words.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "schema::Device")]
    pub device: Option<String>,
}

/// Without the password.
impl std::fmt::Debug for NewSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewSession")
            .field("user", &self.user)
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

/// Whoever has signed in. The token is not told again.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Session {
    pub token: String,
    pub expires_at: String,
    pub user: String,
}

/// Without the token.
impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("user", &self.user)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// Reads an optional field of a request: absent is none (by `default`), null is an error.
fn present<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

/// An enum of plain words is read from a string only: serde's own would also take `{"word": null}`.
macro_rules! word {
    ($name:ident { $($word:literal => $variant:ident),* }) => {
        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(word: String) -> Result<Self, String> {
                match word.as_str() {
                    $($word => Ok(Self::$variant),)*
                    _ => Err(format!("{word:?} is none of {}", [$($word),*].join(", "))),
                }
            }
        }
    };
}

word!(RoomKind { "public" => Public, "group" => Group, "direct" => Direct });
word!(Role { "owner" => Owner, "moderator" => Moderator, "member" => Member });

/// How a lock is taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", try_from = "String")]
pub enum LockMode {
    #[default]
    Exclusive,
    /// Not built yet: refused.
    Shared,
}

word!(LockMode { "exclusive" => Exclusive, "shared" => Shared });

/// Who wants a lock, for how long, and how long he waits for it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AcquireLock {
    /// A label for people, 1 to 128 bytes.
    #[schemars(with = "schema::LockOwner")]
    pub owner: String,
    /// 100 to 3,600,000, counted from the grant.
    #[schemars(with = "schema::LockTtl")]
    pub ttl_ms: u64,
    /// 0 to 3,600,000; absent or 0: now or never.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "schema::LockWait")]
    pub wait_ms: Option<u64>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "schema::LockModeAsked")]
    pub mode: Option<LockMode>,
    /// Any JSON value but null, at most 4 KiB: what a holder says of himself.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "schema::LockData")]
    pub data: Option<serde_json::Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RenewLock {
    #[schemars(with = "schema::Token")]
    pub token: u64,
    /// Absent: the one that it was taken with.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "schema::LockTtl")]
    pub ttl_ms: Option<u64>,
}

/// A lock that the caller holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HeldLock {
    pub lock: String,
    pub owner: String,
    /// The fencing token: it grows with every grant.
    pub token: u64,
    pub mode: LockMode,
    /// Counted from before the request was sent; 0: it may be lost already.
    pub expires_in_ms: u64,
}

/// A lock as everybody sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Lock {
    pub lock: String,
    pub mode: LockMode,
    pub holders: Vec<LockHolder>,
    /// First come, first served; the first hundred of them.
    pub queue: Vec<LockWaiter>,
    /// How many wait, shown or not.
    pub waiters: u64,
    pub last_token: u64,
    pub rev: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LockHolder {
    pub owner: String,
    pub token: u64,
    pub expires_in_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "schema::LockData")]
    pub data: Option<serde_json::Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LockWaiter {
    pub owner: String,
    pub waiting_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LockList {
    pub locks: Vec<Lock>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}
