//! What fills one room stream. The feed pulls: it takes what comes after the last position, hands it
//! to a small buffer in front of the socket, and waits for a hint that there is more. Nothing is queued
//! per reader but that buffer, so a reader's slowness costs the node nothing, and after a bounded time it
//! costs the reader his stream.
//!
//! Where a reader takes it from: mostly from the room's tail, which one of those who follow the room has
//! filled from the state, for all of them; one who is behind that asks the state by himself. Either way
//! whether he may read is asked of the state each time.
//!
//! `ring`: the tail of one room, as values. `tails`: who shares which. `outlet`: the way to the socket.

mod outlet;
mod ring;
mod tails;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use quorate_state_machine::query::{QueryBody, RoomChange, RoomCursor};
use quorate_state_machine::{Answer, Caller, Code, Position, Query, RoomId, SpaceId, Topic};
use tokio::time::Instant;

use crate::app::{App, position_of};
use crate::places::Place;
use crate::replica::{Level, ReadOptions, ReplicaError};
use crate::revocation::revoked;
use crate::sse;
use outlet::Outlet;
use ring::{Chunk, Look, Piece, Written};
use tails::Follower;
pub(crate) use tails::Tails;

/// Items of the first query, before it is known how large they are.
pub(crate) const FIRST_ITEMS: u32 = 32;
/// Items of one query.
const ITEMS_MAX: u32 = 256;
/// What a query should bring into memory for one reader: with as many readers at once as there may be 4 GiB at
/// the very worst, and no more than a few hundred small messages need.
const QUERY_BYTES: usize = 256 << 10;
/// A piece handed to the connection. A frame is never split, so one large message may exceed it.
const CHUNK_BYTES: usize = 16 << 10;
/// How long to wait after a query that found the node briefly unable to answer.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// An answer to [`QueryBody::RoomChanges`].
pub(crate) struct Page {
    pub(crate) items: Vec<RoomChange>,
    pub(crate) next: Position,
    pub(crate) more: bool,
    pub(crate) room: RoomId,
}

impl Page {
    pub(crate) fn from(answer: Answer) -> Option<Self> {
        match answer {
            Answer::RoomChanges {
                items,
                next,
                more,
                room,
            } => Some(Self {
                items,
                next,
                more,
                room,
            }),
            _ => None,
        }
    }
}

pub(crate) struct Feed {
    pub(crate) app: Arc<App>,
    pub(crate) room: String,
    pub(crate) caller: Caller,
    /// Where the reader is before the first page, if that is a position: then he is told at once.
    pub(crate) start: Option<Position>,
    /// Counts against [`crate::Limits::streams_max`] for as long as the feed runs.
    pub(crate) place: Place,
}

/// Why a stream ends.
enum End {
    /// Shutdown, or a reader who may no longer read: nothing more to say.
    Silent,
    /// The reader is gone.
    Gone,
    Slow,
    /// With the state in which the room is gone.
    Deleted(Position),
    /// With the state that has no such position.
    Expired(Position),
}

impl Feed {
    /// Begins to deliver, with the page that was already read. The body ends with the stream.
    pub(crate) fn start(self, first: Page) -> Body {
        let (outlet, body, last) = outlet::channel(
            self.app.limits.slow_consumer_after,
            self.app.metrics.events_delivered.clone(),
        );
        tokio::spawn(async move {
            let _place = self.place;
            let mut run = Run {
                outlet,
                position: first.next,
                is_behind: first.more,
                bookmarked: None,
                items: FIRST_ITEMS,
                shutdown: end(&self.app, &self.caller),
                room_id: first.room,
                follower: self
                    .app
                    .tails
                    .follow(first.room, || self.app.replica.watch(Topic::Room(first.room))),
                app: self.app,
                room: self.room,
                caller: self.caller,
            };
            let Err(end) = run.follow(self.start, first).await;
            if let Some(frame) = run.last_words(end) {
                // The reader may be gone by now.
                let _ = last.send(frame);
            }
        });
        body
    }
}

pub(crate) fn shutdown(app: &App) -> BoxFuture<'static, ()> {
    let closing = app.closing.clone();
    let shutting_down = app.replica.shutting_down();
    Box::pin(async move {
        tokio::select! {
            () = closing.cancelled() => {}
            () = shutting_down => {}
        }
    })
}

/// The node goes, or the reader's session has ended.
fn end(app: &Arc<App>, caller: &Caller) -> BoxFuture<'static, ()> {
    let (shutdown, revoked) = (shutdown(app), revoked(app, caller));
    Box::pin(async move {
        tokio::select! {
            () = shutdown => {}
            () = revoked => {}
        }
    })
}

struct Run {
    app: Arc<App>,
    room: String,
    room_id: RoomId,
    follower: Follower,
    caller: Caller,
    /// Everything up to here is in the outlet.
    position: Position,
    /// The last answer to this reader alone was cut: there was more behind it already.
    is_behind: bool,
    /// When the last bookmark was written.
    bookmarked: Option<Instant>,
    /// How many items the next query of this reader alone asks for.
    items: u32,
    shutdown: BoxFuture<'static, ()>,
    outlet: Outlet,
}

/// How a reader stands after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stands {
    /// Perhaps there is more: he looks again at once.
    Behind,
    CaughtUp,
    /// This node cannot say just now.
    Unknown,
}

impl Run {
    async fn follow(&mut self, start: Option<Position>, first: Page) -> Result<Infallible, End> {
        let mut hints = self.follower.hints();
        if let Some(start) = start {
            self.bookmark(start);
        }
        // The first page may have been read before the tail began to listen, so it is looked for more in any case.
        let more = first.more;
        let written = self.write(first.items);
        self.items = written.items_next.unwrap_or(self.items);
        let pieces = written.chunks.into_iter().map(Chunk::whole).collect();
        self.deliver(pieces, first.next, more).await?;
        loop {
            // Before the look: what happens after it wakes us, what happened before is found by it.
            hints.mark_unchanged();
            let until = match self.step().await? {
                Stands::Behind => continue,
                Stands::CaughtUp => self.bookmark_due(),
                Stands::Unknown => Instant::now() + RETRY_AFTER,
            };
            tokio::select! {
                hint = hints.changed() => hint.map_err(|_| End::Silent)?,
                () = tokio::time::sleep_until(until) => {}
                () = &mut self.shutdown => return Err(End::Silent),
                () = self.outlet.closed() => return Err(End::Gone),
            }
        }
    }

    /// Delivers what comes next, if there is something.
    async fn step(&mut self) -> Result<Stands, End> {
        let is_due = self.bookmarked.is_some() && Instant::now() >= self.bookmark_due();
        match self.follower.look(self.position) {
            Look::Pieces { pieces, next } if !is_due => {
                // Whether there are any or not: who may not read any more has no stream.
                if !self.may_read().await? {
                    return Ok(Stands::Unknown);
                }
                self.is_behind = false;
                self.deliver(pieces, next, true).await
            }
            // Nobody else would want what he asks for.
            _ if self.is_behind => self.step_alone().await,
            Look::Elsewhere => self.step_alone().await,
            Look::Ask => self.step_for_all(false).await,
            // What a bookmark says is of the state as it is then.
            _ if is_due => self.step_for_all(true).await,
            Look::Nothing | Look::Pieces { .. } => self.deliver(Vec::new(), self.position, false).await,
        }
    }

    /// Asks the state for what comes behind this reader's position.
    async fn step_alone(&mut self) -> Result<Stands, End> {
        let Some(page) = self.query(RoomCursor::After(self.position), self.items).await? else {
            return Ok(Stands::Unknown);
        };
        let written = self.write(page.items);
        self.items = written.items_next.unwrap_or(self.items);
        self.is_behind = page.more;
        let pieces = written.chunks.into_iter().map(Chunk::whole).collect();
        self.deliver(pieces, page.next, page.more).await
    }

    /// Asks the state for what comes behind the tail, puts it there, and takes what is new to this reader. Who finds
    /// that another has asked meanwhile does not ask again, unless he `must`.
    async fn step_for_all(&mut self, must: bool) -> Result<Stands, End> {
        let tail = self.follower.tail();
        let turn = tail.turn().await;
        if !must && self.follower.look(self.position) != Look::Ask {
            return Ok(Stands::Behind);
        }
        let (after, limit) = self.follower.question(self.position);
        let Some(page) = self.query(RoomCursor::After(after), limit).await? else {
            return Ok(Stands::Unknown);
        };
        let written = self.write(page.items);
        let mine = self
            .follower
            .extend(after, written, page.next, page.more, self.position);
        drop(turn);
        match mine {
            Some((pieces, next)) => self.deliver(pieces, next, page.more).await,
            None => Ok(Stands::Behind),
        }
    }

    fn write(&self, changes: Vec<RoomChange>) -> Written {
        let written = ring::write(&self.room, changes);
        self.app.metrics.events_encoded.inc_by(written.events as u64);
        written
    }

    /// Whether he may read the room, in a state that is no older than what the tail has. False when this node cannot
    /// say just now.
    async fn may_read(&mut self) -> Result<bool, End> {
        if self.caller == Caller::Root {
            return Ok(true);
        }
        Ok(self.query(RoomCursor::Now, 1).await?.is_some())
    }

    /// What comes next; none when this node cannot say just now.
    async fn query(&mut self, after: RoomCursor, limit: u32) -> Result<Option<Page>, End> {
        let body = QueryBody::RoomChanges {
            room: self.room.clone(),
            after,
            limit,
        };
        let query = Query {
            space: SpaceId::MAIN,
            caller: self.caller.clone(),
            body,
        };
        let deadline = std::time::Instant::now() + self.app.limits.request_timeout;
        // This node's own state is enough: the reader is promised order and completeness, not haste.
        let options = ReadOptions {
            deadline,
            level: Level::Local,
            min_position: None,
        };
        let answered = match self.app.replica.read(query, options).await {
            Ok(answered) => answered,
            Err(ReplicaError::NotReady(_) | ReplicaError::NoLeader | ReplicaError::Overloaded(_)) => return Ok(None),
            Err(_) => return Err(End::Silent),
        };
        let state = position_of(&answered);
        match answered.answer {
            Ok(answer) => {
                let page = Page::from(answer).ok_or(End::Silent)?;
                // A room made anew under the same name is another room.
                if page.room == self.room_id {
                    Ok(Some(page))
                } else {
                    Err(End::Silent)
                }
            }
            Err(rejection) if rejection.code == Code::PositionExpired => Err(End::Expired(state)),
            Err(rejection) if rejection.code == Code::NotFound => Err(End::Deleted(state)),
            // No longer a member, or no longer a user.
            Err(_) => Err(End::Silent),
        }
    }

    /// Hands over what there is up to `next`.
    async fn deliver(&mut self, pieces: Vec<Piece>, next: Position, more: bool) -> Result<Stands, End> {
        let is_last = pieces.last().is_some_and(|piece| piece.is_last);
        if !pieces.is_empty() {
            self.put(pieces).await?;
        }
        self.position = next;
        if is_last {
            self.flush().await?;
            return Err(End::Silent);
        }
        let caught_up_first = !more && self.bookmarked.is_none();
        if caught_up_first || (self.bookmarked.is_some() && Instant::now() >= self.bookmark_due()) {
            self.bookmark(next);
        }
        if !self.outlet.is_flushed() {
            self.flush().await?;
        }
        Ok(if more { Stands::Behind } else { Stands::CaughtUp })
    }

    fn bookmark(&mut self, position: Position) {
        self.outlet
            .write(position, |frames| sse::bookmark(frames, &self.room, position));
        self.bookmarked = Some(Instant::now());
    }

    fn bookmark_due(&self) -> Instant {
        self.bookmarked.unwrap_or_else(Instant::now) + self.app.limits.bookmark_interval
    }

    async fn put(&mut self, pieces: Vec<Piece>) -> Result<(), End> {
        tokio::select! {
            biased;
            () = &mut self.shutdown => Err(End::Silent),
            put = self.outlet.put(pieces) => put,
        }
    }

    async fn flush(&mut self) -> Result<(), End> {
        tokio::select! {
            biased;
            () = &mut self.shutdown => Err(End::Silent),
            flushed = self.outlet.flush() => flushed,
        }
    }

    /// The frame that says why the stream ends, where there is something to say.
    fn last_words(&self, end: End) -> Option<Bytes> {
        let mut frame = BytesMut::new();
        match end {
            End::Silent | End::Gone => return None,
            End::Slow => {
                self.app.metrics.slow_consumers.inc();
                sse::slow_consumer(&mut frame, &self.room, self.outlet.sent());
            }
            End::Deleted(state) => sse::deleted(&mut frame, &self.room, state),
            End::Expired(state) => sse::expired(&mut frame, &self.room, state),
        }
        Some(frame.freeze())
    }
}
