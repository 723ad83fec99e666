//! What fills one room stream. The feed pulls: it asks the node's own state for what comes after
//! the last position, hands it to a small buffer in front of the socket, and waits for a hint that
//! there is more. Nothing is queued per reader but that buffer, so a reader's slowness costs the
//! node nothing, and after a bounded time it costs the reader his stream.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use quorate_state_machine::query::{QueryBody, RoomChange, RoomCursor};
use quorate_state_machine::{Answer, Caller, Code, Position, Query, RoomId, SpaceId, Topic};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::app::{App, position_of};
use crate::places::Place;
use crate::replica::{Level, ReadOptions, ReplicaError};
use crate::revocation::revoked;
use crate::sse;

/// Items of the first query, before it is known how large they are.
pub(crate) const FIRST_ITEMS: u32 = 32;
/// Items of one query.
const ITEMS_MAX: u32 = 256;
/// What a query should bring into memory for one reader: with 10,000 readers at once 2.5 GiB at
/// the very worst, and no more than a few hundred small messages need.
const QUERY_BYTES: usize = 256 << 10;
/// A piece handed to the connection. A frame is never split, so one large message may exceed it.
const CHUNK_BYTES: usize = 16 << 10;
/// Pieces between feed and connection. When they are full, the feed waits, and after
/// [`crate::Limits::slow_consumer_after`] it gives up.
const CHUNKS: usize = 4;
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
        let (pieces, received) = mpsc::channel(CHUNKS);
        let (last, last_received) = oneshot::channel();
        tokio::spawn(async move {
            let _place = self.place;
            let mut run = Run {
                outlet: Outlet {
                    pieces,
                    buffer: BytesMut::new(),
                    buffered: None,
                    sent: None,
                    patience: self.app.limits.slow_consumer_after,
                },
                position: first.next,
                bookmarked: None,
                items: FIRST_ITEMS,
                shutdown: end(&self.app, &self.caller),
                room_id: first.room,
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
        Body::from_stream(futures::stream::unfold((received, Some(last_received)), next_piece))
    }
}

/// The connection's end of a feed.
type Inlet = (mpsc::Receiver<Bytes>, Option<oneshot::Receiver<Bytes>>);

/// What was buffered, then the last words, then the end.
async fn next_piece((mut received, mut last): Inlet) -> Option<(Result<Bytes, Infallible>, Inlet)> {
    let piece = match received.recv().await {
        Some(piece) => piece,
        None => last.take()?.await.ok()?,
    };
    Some((Ok(piece), (received, last)))
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
    caller: Caller,
    /// Everything up to here is in the outlet.
    position: Position,
    /// When the last bookmark was written.
    bookmarked: Option<Instant>,
    /// How many items the next query asks for.
    items: u32,
    shutdown: BoxFuture<'static, ()>,
    outlet: Outlet,
}

impl Run {
    async fn follow(&mut self, start: Option<Position>, first: Page) -> Result<Infallible, End> {
        let mut hints = self.app.replica.watch(Topic::Room(self.room_id));
        if let Some(start) = start {
            self.bookmark(start);
        }
        // The first page was read before the watch was taken, so a query follows in any case.
        self.deliver(first).await?;
        loop {
            // Before the query: what happens after it wakes us, what happened before is found by it.
            hints.mark_unchanged();
            let until = match self.query().await? {
                Some(page) => {
                    if self.deliver(page).await? {
                        continue;
                    }
                    self.bookmark_due()
                }
                None => Instant::now() + RETRY_AFTER,
            };
            tokio::select! {
                hint = hints.changed() => hint.map_err(|_| End::Silent)?,
                () = tokio::time::sleep_until(until) => {}
                () = &mut self.shutdown => return Err(End::Silent),
                () = self.outlet.pieces.closed() => return Err(End::Gone),
            }
        }
    }

    /// What comes next; none when this node cannot say just now.
    async fn query(&mut self) -> Result<Option<Page>, End> {
        let after = RoomCursor::After(self.position);
        let body = QueryBody::RoomChanges {
            room: self.room.clone(),
            after,
            limit: self.items,
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

    /// Hands a page over; true when there is more right now.
    async fn deliver(&mut self, page: Page) -> Result<bool, End> {
        let (items, mut bytes) = (page.items.len(), 0);
        for change in page.items {
            let position = change.position;
            let before = self.outlet.buffer.len();
            let ends = sse::change(&mut self.outlet.buffer, &self.room, change);
            bytes += self.outlet.buffer.len() - before;
            self.outlet.buffered = Some(position);
            if ends {
                self.flush().await?;
                return Err(End::Silent);
            }
            if self.outlet.buffer.len() >= CHUNK_BYTES {
                self.flush().await?;
            }
        }
        self.position = page.next;
        if let Some(average) = bytes.checked_div(items) {
            let fit = QUERY_BYTES / average.max(1);
            self.items = u32::try_from(fit).unwrap_or(ITEMS_MAX).clamp(1, ITEMS_MAX);
        }
        let caught_up_first = !page.more && self.bookmarked.is_none();
        if caught_up_first || (self.bookmarked.is_some() && Instant::now() >= self.bookmark_due()) {
            self.bookmark(page.next);
        }
        self.flush().await?;
        Ok(page.more)
    }

    fn bookmark(&mut self, position: Position) {
        sse::bookmark(&mut self.outlet.buffer, &self.room, position);
        self.outlet.buffered = Some(position);
        self.bookmarked = Some(Instant::now());
    }

    fn bookmark_due(&self) -> Instant {
        self.bookmarked.unwrap_or_else(Instant::now) + self.app.limits.bookmark_interval
    }

    async fn flush(&mut self) -> Result<(), End> {
        tokio::select! {
            flushed = self.outlet.flush() => flushed,
            () = &mut self.shutdown => Err(End::Silent),
        }
    }

    /// The frame that says why the stream ends, where there is something to say.
    fn last_words(&self, end: End) -> Option<Bytes> {
        let mut frame = BytesMut::new();
        match end {
            End::Silent | End::Gone => return None,
            End::Slow => {
                self.app.metrics.slow_consumers.inc();
                sse::slow_consumer(&mut frame, &self.room, self.outlet.sent);
            }
            End::Deleted(state) => sse::deleted(&mut frame, &self.room, state),
            End::Expired(state) => sse::expired(&mut frame, &self.room, state),
        }
        Some(frame.freeze())
    }
}

/// Frames on their way to the connection.
struct Outlet {
    pieces: mpsc::Sender<Bytes>,
    /// Whole frames that were not handed over yet.
    buffer: BytesMut,
    /// The position of the last frame in `buffer`.
    buffered: Option<Position>,
    /// The position of the last frame that was handed over.
    sent: Option<Position>,
    patience: Duration,
}

impl Outlet {
    async fn flush(&mut self) -> Result<(), End> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        match tokio::time::timeout(self.patience, self.pieces.reserve()).await {
            Ok(Ok(place)) => {
                place.send(self.buffer.split().freeze());
                self.sent = self.buffered;
                Ok(())
            }
            Ok(Err(_closed)) => Err(End::Gone),
            Err(_elapsed) => Err(End::Slow),
        }
    }
}
