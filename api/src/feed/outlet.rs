//! The way from a feed to its connection.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use prometheus::IntCounter;
use quorate_state_machine::Position;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::CHUNK_BYTES;
use super::End;
use super::ring::Piece;

/// Pieces between feed and connection. When they are full, the feed waits, and after
/// [`crate::Limits::slow_consumer_after`] it gives up.
const PIECES: usize = 4;
/// Smaller pieces are copied together where there are several: a write to the socket costs more than that.
const COPIED_BYTES_MAX: usize = CHUNK_BYTES / 4;

/// Frames on their way to the connection.
pub(super) struct Outlet {
    pieces: mpsc::Sender<Bytes>,
    /// Whole frames that were not handed over yet. Empty, and without memory, while the feed waits for news.
    buffer: BytesMut,
    /// How many of them are events of the room.
    events: usize,
    /// The position of the last frame in `buffer`.
    buffered: Option<Position>,
    /// The position of the last frame that was handed over.
    sent: Option<Position>,
    patience: Duration,
    delivered: IntCounter,
}

/// A new outlet; the body that shows what goes in; and what is said last, also to a reader who is too slow.
pub(super) fn channel(patience: Duration, delivered: IntCounter) -> (Outlet, Body, oneshot::Sender<Bytes>) {
    let (pieces, received) = mpsc::channel(PIECES);
    let (last, last_received) = oneshot::channel();
    let outlet = Outlet {
        pieces,
        buffer: BytesMut::new(),
        events: 0,
        buffered: None,
        sent: None,
        patience,
        delivered,
    };
    let body = Body::from_stream(futures::stream::unfold((received, Some(last_received)), next_piece));
    (outlet, body, last)
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

impl Outlet {
    /// Frames that are the reader's own, up to the position, go behind what is in.
    pub(super) fn write(&mut self, position: Position, write: impl FnOnce(&mut BytesMut)) {
        write(&mut self.buffer);
        self.buffered = Some(position);
    }

    /// Hands all pieces over, or takes them in until [`Outlet::flush`].
    pub(super) async fn put(&mut self, pieces: Vec<Piece>) -> Result<(), End> {
        let is_alone = pieces.len() == 1;
        for piece in pieces {
            let Piece {
                frames,
                events,
                position,
                ..
            } = piece;
            if self.buffer.is_empty() && (is_alone || frames.len() >= COPIED_BYTES_MAX) {
                self.send(frames, events, position).await?;
                continue;
            }
            self.buffer.extend_from_slice(&frames);
            self.events += events;
            self.buffered = Some(position);
            if self.buffer.len() >= CHUNK_BYTES {
                self.flush().await?;
            }
        }
        Ok(())
    }

    pub(super) fn is_flushed(&self) -> bool {
        self.buffered.is_none()
    }

    pub(super) async fn flush(&mut self) -> Result<(), End> {
        let Some(position) = self.buffered.take() else {
            return Ok(());
        };
        let (frames, events) = (std::mem::take(&mut self.buffer), std::mem::take(&mut self.events));
        self.send(frames.freeze(), events, position).await
    }

    async fn send(&mut self, frames: Bytes, events: usize, position: Position) -> Result<(), End> {
        match self.pieces.try_send(frames) {
            Ok(()) => {}
            Err(TrySendError::Closed(_)) => return Err(End::Gone),
            Err(TrySendError::Full(frames)) => {
                match tokio::time::timeout(self.patience, self.pieces.send(frames)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_closed)) => return Err(End::Gone),
                    Err(_elapsed) => return Err(End::Slow),
                }
            }
        }
        self.sent = Some(position);
        self.delivered.inc_by(events as u64);
        Ok(())
    }

    /// The position of the last frame that was handed over.
    pub(super) fn sent(&self) -> Option<Position> {
        self.sent
    }

    /// Returns when the reader has gone.
    pub(super) async fn closed(&self) {
        self.pieces.closed().await;
    }
}
