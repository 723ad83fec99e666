//! The line to one client: frames in and out, bounded in memory and in time whoever holds the other end.
//!
//! Nothing is queued for a client but what he did not take of his answers. While he takes nothing he is not read
//! from either, so that whoever does not listen cannot ask: TCP holds him back, and after a bounded time he is cut.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use quorate_client::wire::socket::SocketAnswer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message, Utf8Bytes};

use super::end::End;
use crate::app::App;
use crate::body::Pace;
use crate::budget::Share;

/// A read takes so much at most: some 50 small frames. With 16,000 sockets 256 MiB.
const READ_BYTES: usize = 16 << 10;
/// Answers are collected up to this before they are written without waiting for a pause.
const WRITE_BYTES: usize = 16 << 10;
/// Of answers that were not taken yet; beyond it no further frame is read and no further answer written. One answer,
/// the largest of which has a thousand seqs, may exceed it.
const UNTAKEN_BYTES_MAX: usize = 64 << 10;
/// The same, with what the protocol says by itself: answers to pings.
const WRITE_BYTES_MAX: usize = 256 << 10;
/// What arrives of a frame before it counts against what all bodies of the node may take.
const UNCOUNTED_BYTES: u64 = 64 << 10;
/// What is read and thrown away behind a close frame, so that the client finds it instead of a reset connection, and
/// for how long.
const DISCARD_BYTES_MAX: u64 = 16 << 20;
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

pub(super) struct Line {
    app: Arc<App>,
    stream: WebSocketStream<Counted>,
    /// Bytes of frames that were written since all was last taken, about.
    untaken: usize,
    /// Since when the client does not take it.
    stalled: Option<Instant>,
    /// When something was last heard of the client, and when he was then asked whether he lives.
    heard: Instant,
    pinged: Option<Instant>,
    coming: Coming,
    /// Fires when one of these times may be over.
    alarm: Pin<Box<Sleep>>,
    broken: Option<End>,
}

/// What has arrived of a frame that is not complete.
#[derive(Default)]
struct Coming {
    /// How much had arrived in all when the last frame was complete, and when it was last looked.
    before: u64,
    seen: u64,
    pace: Option<Pace>,
    /// Of the budget of all bodies.
    share: Share,
    counted: u64,
}

/// What happened on the line.
pub(super) enum Event {
    Text(Utf8Bytes),
    Binary,
    /// Nothing to answer; there may be room again.
    Nothing,
    End(End),
}

impl Line {
    pub(super) async fn new(app: Arc<App>, upgraded: Upgraded) -> Self {
        let limits = &app.limits;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .write_buffer_size(WRITE_BYTES)
            .max_write_buffer_size(WRITE_BYTES_MAX)
            .max_message_size(Some(limits.body_bytes_max))
            .max_frame_size(Some(limits.body_bytes_max));
        let socket = Counted {
            socket: TokioIo::new(upgraded),
            received: 0,
        };
        let now = Instant::now();
        Self {
            stream: WebSocketStream::from_raw_socket(socket, Role::Server, Some(config)).await,
            untaken: 0,
            stalled: None,
            heard: now,
            pinged: None,
            coming: Coming::default(),
            alarm: Box::pin(tokio::time::sleep_until(now + limits.socket_ping_interval)),
            broken: None,
            app,
        }
    }

    /// Whether the client takes what is written to him.
    pub(super) fn has_room(&self) -> bool {
        self.stalled.is_none() && self.untaken < UNTAKEN_BYTES_MAX
    }

    /// Whether all was taken.
    pub(super) fn is_taken(&self) -> bool {
        self.untaken == 0
    }

    /// Written at the latest when nothing else is to be done.
    pub(super) fn say(&mut self, answer: &SocketAnswer) {
        let text = serde_json::to_string(answer).expect("an answer holds only strings and numbers");
        self.put(Message::Text(text.into()));
    }

    fn put(&mut self, message: Message) {
        self.untaken += message.len().max(1);
        // Not asked before whether it is ready: what was taken before bounds how much there is to be buffered.
        match self.stream.start_send_unpin(message) {
            Ok(()) => {}
            Err(Error::WriteBufferFull(_)) => self.broken = Some(End::Slow),
            Err(_) => self.broken = Some(End::Gone),
        }
    }

    /// The next thing that happens. Dropped before it is ready, it loses nothing.
    pub(super) async fn event(&mut self, may_read: bool) -> Event {
        std::future::poll_fn(|cx| self.poll_event(cx, may_read)).await
    }

    fn poll_event(&mut self, cx: &mut Context<'_>, may_read: bool) -> Poll<Event> {
        if let Some(end) = self.broken.take() {
            return Poll::Ready(Event::End(end));
        }
        let may_read = may_read && self.has_room();
        if may_read {
            match self.stream.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(message))) => return Poll::Ready(self.complete(message)),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Event::End(End::of(&error))),
                Poll::Ready(None) => return Poll::Ready(Event::End(End::Gone)),
                Poll::Pending => {
                    if let Err(end) = self.look_at_what_comes() {
                        return Poll::Ready(Event::End(end));
                    }
                }
            }
        }
        loop {
            if self.untaken > 0 {
                match self.stream.poll_flush_unpin(cx) {
                    Poll::Ready(Ok(())) => {
                        (self.untaken, self.stalled) = (0, None);
                        // Whoever waited for this, or did not read because of it, looks again.
                        if !may_read {
                            return Poll::Ready(Event::Nothing);
                        }
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(Event::End(End::Gone)),
                    Poll::Pending if self.stalled.is_none() => self.stalled = Some(Instant::now()),
                    Poll::Pending => {}
                }
            }
            match self.poll_alarm(cx, may_read) {
                // Perhaps a ping is to be written.
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(end)) => return Poll::Ready(Event::End(end)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn complete(&mut self, message: Message) -> Event {
        (self.heard, self.pinged) = (Instant::now(), None);
        let received = self.stream.get_ref().received;
        match message {
            Message::Text(text) => {
                self.coming.begin_anew(received);
                Event::Text(text)
            }
            Message::Binary(_) => {
                self.coming.begin_anew(received);
                Event::Binary
            }
            Message::Ping(data) => {
                self.coming.pass_control(data.len(), received);
                // The answer is in the stream already, and is to be written.
                self.untaken += 1;
                Event::Nothing
            }
            Message::Pong(data) => {
                self.coming.pass_control(data.len(), received);
                Event::Nothing
            }
            // The answer is written with the next read, which ends the stream.
            Message::Close(_) | Message::Frame(_) => Event::Nothing,
        }
    }

    /// No frame is complete; perhaps a part of one is there.
    fn look_at_what_comes(&mut self) -> Result<(), End> {
        let received = self.stream.get_ref().received;
        if received != self.coming.seen {
            self.coming.seen = received;
            (self.heard, self.pinged) = (Instant::now(), None);
        }
        self.coming.count(&self.app)
    }

    /// Ok: look again.
    fn poll_alarm(&mut self, cx: &mut Context<'_>, may_read: bool) -> Poll<Result<(), End>> {
        let due = self.due();
        if due < self.alarm.deadline() {
            self.alarm.as_mut().reset(due);
        }
        if self.alarm.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        let now = Instant::now();
        let limits = &self.app.limits;
        if self
            .stalled
            .is_some_and(|since| now >= since + limits.slow_consumer_after)
        {
            return Poll::Ready(Err(End::Slow));
        }
        let interval = limits.socket_ping_interval;
        if !may_read {
            // What he says is not read: that he is silent is not his doing.
            (self.heard, self.pinged) = (now, None);
            self.coming.pause();
        } else if self.coming.is_too_slow() {
            return Poll::Ready(Err(End::Dripping));
        } else if self.pinged.is_some_and(|at| now >= at + interval) {
            return Poll::Ready(Err(End::Silent));
        } else if self.pinged.is_none() && now >= self.heard + interval {
            self.pinged = Some(now);
            self.put(Message::Ping(Bytes::new()));
            if let Some(end) = self.broken.take() {
                return Poll::Ready(Err(end));
            }
        }
        let due = self.due();
        self.alarm.as_mut().reset(due);
        Poll::Ready(Ok(()))
    }

    /// When one of the times may be over.
    fn due(&self) -> Instant {
        let limits = &self.app.limits;
        let stalled = self.stalled.map(|since| since + limits.slow_consumer_after);
        let coming = self.coming.pace.as_ref().map(Pace::look_at);
        let silent = self.pinged.unwrap_or(self.heard) + limits.socket_ping_interval;
        [stalled, coming].into_iter().flatten().fold(silent, Instant::min)
    }

    /// Says why, where the client can still hear it.
    pub(super) async fn close(mut self, end: &End) {
        let Some((code, reason)) = end.last_words() else {
            return;
        };
        let frame = CloseFrame {
            code: code.into(),
            reason: reason.into(),
        };
        let closing = async {
            self.stream.send(Message::Close(Some(frame))).await.map_err(drop)?;
            let socket = self.stream.get_mut();
            socket.shutdown().await.map_err(drop)?;
            let mut rest = socket.take(DISCARD_BYTES_MAX);
            tokio::io::copy(&mut rest, &mut tokio::io::sink()).await.map_err(drop)
        };
        // Who has not taken it by then is cut.
        let _ = tokio::time::timeout(CLOSE_WITHIN, closing).await;
    }
}

impl Coming {
    fn bytes(&self) -> u64 {
        self.seen.saturating_sub(self.before)
    }

    /// A frame is complete. What else came with it belongs to the next one, and is bounded by one read.
    fn begin_anew(&mut self, received: u64) {
        *self = Self {
            before: received,
            seen: received,
            ..Self::default()
        };
    }

    /// A ping or a pong may stand between the parts of a frame, and belongs to none: two bytes, the mask, the data.
    fn pass_control(&mut self, data_bytes: usize, received: u64) {
        self.before = (self.before + 6 + data_bytes as u64).min(received);
        self.seen = received;
        if self.bytes() == 0 {
            self.pace = None;
        }
    }

    fn count(&mut self, app: &App) -> Result<(), End> {
        let bytes = self.bytes();
        if bytes == 0 {
            return Ok(());
        }
        self.pace.get_or_insert_with(|| Pace::begin(&app.limits));
        if bytes > self.counted + UNCOUNTED_BYTES {
            let more = usize::try_from(bytes - self.counted).unwrap_or(usize::MAX);
            app.bodies.take(&mut self.share, more).map_err(|_| End::Overloaded)?;
            self.counted = bytes;
        }
        Ok(())
    }

    fn is_too_slow(&mut self) -> bool {
        let bytes = usize::try_from(self.bytes()).unwrap_or(usize::MAX);
        self.pace.as_mut().is_some_and(|pace| pace.check(bytes).is_err())
    }

    /// Nothing is read for a while: its time begins again with the next look.
    fn pause(&mut self) {
        self.pace = None;
    }
}

/// A socket that counts what it reads.
struct Counted {
    socket: TokioIo<Upgraded>,
    received: u64,
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.socket).poll_read(cx, buf);
        self.received += (buf.filled().len() - before) as u64;
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
