//! Reads, over the same view as apply. A query names the caller, because who may read what is
//! decided in the same snapshot that answers. No query costs more than its page and a search:
//! neither grows with the size of the room or the number of users.

mod changes;
mod check;
mod credentials;
mod history;
mod lists;
mod locks;
mod page;
mod revisions;

pub use self::page::{PageEnds, PageSink, StoredPage};
use crate::command::Caller;
use crate::entity::{Lock, LockWait, Member, Message, MessageRevision, Room, User};
use crate::event::Event;
use crate::ids::{Epoch, LockId, Position, Revision, Seq, SpaceId};
use crate::keys::{Group, Key};
use crate::read::Reader;
use crate::rejection::{Fatal, Rejection, Stop, settle};
use crate::rows::{SystemRow, TimersRow};
use crate::view::View;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    pub space: SpaceId,
    pub caller: Caller,
    pub body: QueryBody,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueryBody {
    User {
        user: String,
    },
    /// By name, after the cursor (a name that was the last of the page before).
    Users {
        after: Option<String>,
        limit: u32,
    },
    Room {
        room: String,
    },
    /// The caller's rooms; root: all. By name.
    Rooms {
        after: Option<String>,
        limit: u32,
    },
    Members {
        room: String,
        after: Option<String>,
        limit: u32,
    },
    Message {
        room: String,
        seq: Seq,
    },
    Messages {
        room: String,
        from: Page,
        limit: u32,
    },
    /// What a stream of the room delivers next: everything after `after`, in order, at most
    /// `limit` items (a message each). Membership is checked again at each call.
    RoomChanges {
        room: String,
        after: RoomCursor,
        limit: u32,
    },
    /// Nothing but epoch and revision: what `X-Quorate-Position` says.
    Position,
    /// Who the caller is: a session says it by its token only.
    Caller,
    /// A message's earlier texts, oldest first, after the cursor (the rev of the last of the page before).
    MessageRevisions {
        room: String,
        seq: Seq,
        after: Option<Revision>,
        limit: u32,
    },
    /// The user's password hash, to sign him in. For root: the node itself.
    Credentials {
        user: String,
    },
    Lock {
        lock: String,
    },
    /// By name.
    Locks {
        after: Option<String>,
        limit: u32,
    },
    /// What became of a wait. For the node itself: it asks as root.
    LockWait {
        lock: LockId,
        since: Revision,
    },
}

impl Query {
    /// Reads hundreds of rows, or looks for its place among all messages of a room. (What a stream asks for may be as much, and
    /// is hardly ever more than what has just come.)
    pub fn may_take_long(&self) -> bool {
        const ROWS: u32 = 100;
        match &self.body {
            QueryBody::Users { limit, .. }
            | QueryBody::Rooms { limit, .. }
            | QueryBody::Members { limit, .. }
            | QueryBody::MessageRevisions { limit, .. } => *limit > ROWS,
            QueryBody::Messages { from, limit, .. } => *limit > ROWS || matches!(from, Page::At(_)),
            // Each with all who wait for it.
            QueryBody::Locks { .. } => true,
            QueryBody::User { .. }
            | QueryBody::Room { .. }
            | QueryBody::Message { .. }
            | QueryBody::RoomChanges { .. }
            | QueryBody::Position
            | QueryBody::Caller
            | QueryBody::Credentials { .. }
            | QueryBody::Lock { .. }
            | QueryBody::LockWait { .. } => false,
        }
    }
}

/// Which page of a room's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    Newest,
    After(Seq),
    Before(Seq),
    /// The page with the seq in its middle.
    Around(Seq),
    /// Begins at the first message whose running maximum of sent_at reaches the time (ms).
    At(u64),
}

/// Where a stream of one room begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoomCursor {
    /// First the messages after this seq, then everything from the revision at which the query ran.
    AfterSeq(Seq),
    /// From now: answers no items, only the position to go on from.
    Now,
    /// Everything after the position.
    After(Position),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    User(User),
    Users {
        users: Vec<User>,
        next: Option<String>,
    },
    Room(Room),
    Rooms {
        rooms: Vec<Room>,
        next: Option<String>,
    },
    Members {
        members: Vec<Member>,
        next: Option<String>,
    },
    Message(Message),
    Messages {
        messages: Vec<Message>,
        first_seq: Seq,
        last_seq: Seq,
        more_before: bool,
        more_after: bool,
    },
    /// The same of a page that went to a [`PageSink`].
    Page(PageEnds),
    RoomChanges {
        items: Vec<RoomChange>,
        /// Continue here: `RoomCursor::After(next)`. With no items and no more, this is a bookmark.
        next: Position,
        /// More is there right now.
        more: bool,
        /// For watching.
        room: crate::ids::RoomId,
    },
    Position,
    /// A user's name, or `root`.
    Caller(String),
    MessageRevisions {
        revisions: Vec<MessageRevision>,
        next: Option<Revision>,
    },
    /// None: he cannot sign in.
    Credentials {
        password_hash: Option<String>,
    },
    Lock(Lock),
    Locks {
        locks: Vec<Lock>,
        next: Option<String>,
    },
    LockWait(LockWait),
}

/// One event of a room's stream, with its position: a client that has seen it resumes after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomChange {
    pub position: Position,
    pub body: RoomChangeBody,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoomChangeBody {
    Message(Box<Message>),
    /// The message was given another text in the change of this position. It is shown as it is by now: later
    /// edits are in it, and after a redaction it has no text.
    Edited(Box<Message>),
    /// The message's content went in the change of this position.
    Redacted(Box<Message>),
    /// Member, Room or RoomDeleted.
    Event(Event),
}

/// An answer and the state that it reflects, read from one view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    pub epoch: Epoch,
    pub revision: Revision,
    pub answer: Result<Answer, Rejection>,
}

/// Answers from one view. A refusal is in the answer; an error means that the state is damaged or
/// cannot be read.
pub fn query<V: View + ?Sized>(state: &V, query: &Query) -> Result<Answered, Fatal> {
    let mut messages = Vec::new();
    let mut answered = query_into(state, query, &mut messages)?;
    if let Ok(Answer::Page(ends)) = answered.answer {
        let PageEnds {
            first_seq,
            last_seq,
            more_before,
            more_after,
        } = ends;
        answered.answer = Ok(Answer::Messages {
            messages,
            first_seq,
            last_seq,
            more_before,
            more_after,
        });
    }
    Ok(answered)
}

/// The same, but a page of messages goes to `sink`; it takes one only if the question was for one and is not
/// refused. The answer is then [`Answer::Page`].
pub fn query_into<V: View + ?Sized>(state: &V, query: &Query, sink: &mut dyn PageSink) -> Result<Answered, Fatal> {
    let read = Reader {
        view: state,
        space: query.space,
    };
    let system = read.system()?;
    let answer = settle(answer(&read, &system, query, sink))?;
    Ok(Answered {
        epoch: system.epoch,
        revision: system.revision,
        answer,
    })
}

/// The checks in the order of the contract: 400, 401, then 404 and 403 of the body.
fn answer<V: View + ?Sized>(
    read: &Reader<'_, V>,
    system: &SystemRow,
    query: &Query,
    sink: &mut dyn PageSink,
) -> Result<Answer, Stop> {
    check::query(query)?;
    let who = read.who(&query.caller, system.elapsed_ms)?;
    match &query.body {
        QueryBody::User { user } => lists::user(read, user),
        QueryBody::Users { after, limit } => lists::users(read, after.as_deref(), *limit),
        QueryBody::Room { room } => lists::room(read, &who, room),
        QueryBody::Rooms { after, limit } => lists::rooms(read, &who, after.as_deref(), *limit),
        QueryBody::Members { room, after, limit } => lists::members(read, &who, room, after.as_deref(), *limit),
        QueryBody::Message { room, seq } => history::message(read, &who, room, *seq),
        QueryBody::Messages { room, from, limit } => {
            history::page(read, system, &who, room, (*from, *limit), sink).map(Answer::Page)
        }
        QueryBody::RoomChanges { room, after, limit } => changes::room(read, system, &who, room, *after, *limit),
        QueryBody::Position => Ok(Answer::Position),
        QueryBody::Caller => Ok(Answer::Caller(who.name)),
        QueryBody::MessageRevisions {
            room,
            seq,
            after,
            limit,
        } => revisions::of_message(read, &who, room, *seq, *after, *limit),
        QueryBody::Credentials { user } => credentials::credentials(read, &who, user),
        QueryBody::Lock { lock } => locks::lock(read, system, lock),
        QueryBody::Locks { after, limit } => locks::locks(read, system, after.as_deref(), *limit),
        QueryBody::LockWait { lock, since } => locks::wait(read, system, *lock, *since),
    }
}

/// The nodes at which somebody waits for a lock. Costs a search for each.
pub fn homes<V: View + ?Sized>(view: &V, space: SpaceId) -> Result<Vec<u64>, Fatal> {
    let mut homes = Vec::new();
    let mut from = Group::HomeWaiters { node: 0 }.range(space).start;
    let end = Group::HomeWaiters { node: u64::MAX }.range(space).end;
    while let Some((key, _)) = view.scan(&from, &end, false, 1)?.pop() {
        let Some((_, Key::HomeWaiter { node, .. })) = Key::decode(&key) else {
            return Err(Fatal::Corrupt("a key among the waiters of nodes is none".to_owned()));
        };
        homes.push(node);
        from = Group::HomeWaiters { node }.range(space).end;
    }
    Ok(homes)
}

/// Where the state stands: what readers wait for and a leader's clock goes on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    pub epoch: Epoch,
    pub revision: Revision,
    /// The replicated clock when something was last written.
    pub elapsed_ms: u64,
    /// The cluster version (see [`crate::version`]).
    pub version: u32,
    /// On the replicated clock: nothing expires before, and a tick is due then.
    pub next_expiry_ms: Option<u64>,
}

pub fn standing<V: View + ?Sized>(state: &V, space: SpaceId) -> Result<Standing, Fatal> {
    let read = Reader { view: state, space };
    let system = read.system()?;
    Ok(Standing {
        epoch: system.epoch,
        revision: system.revision,
        elapsed_ms: system.elapsed_ms,
        version: read.version()?,
        next_expiry_ms: read.row::<TimersRow>(Key::Timers)?.and_then(|timers| timers.next_ms),
    })
}
