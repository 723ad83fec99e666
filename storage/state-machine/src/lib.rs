//! The rules of Quorate: users, rooms, members, messages, sessions and locks, as pure functions over a key-value view.
//!
//! This crate knows no disk, no network, no clock, no randomness and no async. It is what every
//! replica runs over the same commands in the same order, so two replicas hold the same bytes.
//! Start reading at [`mod@apply`] (what a command does) and [`mod@query`] (what a read answers), then
//! [`keys`] (where things lie).

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod apply;
mod attributes;
pub mod codec;
pub mod command;
pub mod entity;
pub mod event;
pub mod fields;
pub mod ids;
pub mod keys;
pub mod limits;
pub mod memory;
pub mod names;
pub mod planted;
pub mod query;
mod read;
pub mod rejection;
mod row_cache;
mod rows;
pub mod version;
pub mod view;

pub use apply::{Outcome, apply};
pub use command::{Caller, Command, Conditions, EntryMeta, Envelope, Home, Idempotency, IfLock, PackedEntry};
pub use entity::{
    Lock, LockHolder, LockWait, LockWaiter, Member, Message, MessageRef, MessageRevision, Role, Room, RoomKind, User,
};
pub use event::{Event, EventBody, Topic};
pub use ids::{
    Epoch, FencingToken, LockId, Position, Revision, RoomId, RunId, Seq, SpaceId, TokenHash, UserId, WaiterId,
};
pub use memory::{Memory, MemoryView, state_hash};
pub use query::{Answer, Page, PageSink, Query, StoredPage, query, query_into};
pub use rejection::{Code, Fatal, Rejection};
pub use row_cache::RowCache;
pub use version::{VERSION_MAX, VERSION_MIN};
pub use view::{Change, Overlay, View};
