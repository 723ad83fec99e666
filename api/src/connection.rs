//! One client connection: what it may take in time, whoever holds the other end.
//!
//! hyper times a request's head, but neither a connection that never says which protocol it speaks
//! nor an idle one apart from that. So the bytes are watched here: [`Activity`] knows whether the
//! connection is idle, in the middle of a head, or has requests at work, and since when.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};

use crate::config::{Limits, WRITTEN_BYTES_MIN};

/// What an HTTP/2 connection may send while no request of it is at work: the next head, and what
/// peers say to each other beside requests. A peer that pings and resets without ever asking for
/// anything is cut beyond it. h2 itself ends floods of resets, continuations and empty frames, but
/// not of pings and settings.
const IDLE_BYTES_MAX: usize = 256 << 10;

/// How an HTTP/2 connection begins (RFC 9113, section 3.4). Half of it is half a head.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[derive(Debug)]
pub(crate) struct Activity {
    /// Held for a few instructions, never across an await.
    state: Mutex<State>,
    /// Told when the last request at work has ended.
    rests: Notify,
}

#[derive(Debug)]
struct State {
    requests: usize,
    phase: Phase,
    since: Instant,
    /// How much of HTTP/2's preface the connection's first bytes are.
    preface_bytes: usize,
    protocol: Protocol,
    /// Received since a request was last at work.
    idle_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    /// Nothing came yet, or a part of the preface.
    Open,
    Http1,
    Http2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// A head is awaited or arriving: the time runs from the accept, or from its first byte. A
    /// connection's first request has no more time than this, whatever its protocol.
    Head,
    /// Between requests.
    Idle,
}

/// As metrics name it.
const FLOOD: &str = "idle_flood";

impl State {
    /// HTTP/1 has its bound of a head.
    fn is_flood(&self) -> bool {
        self.requests == 0 && self.protocol == Protocol::Http2 && self.idle_bytes > IDLE_BYTES_MAX
    }
}

impl Activity {
    pub(crate) fn new() -> Arc<Self> {
        let state = State {
            requests: 0,
            phase: Phase::Head,
            since: Instant::now(),
            preface_bytes: 0,
            protocol: Protocol::Open,
            idle_bytes: 0,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            rests: Notify::new(),
        })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the lock")
    }

    fn received(&self, bytes: &[u8]) {
        let mut state = self.state();
        if state.protocol == Protocol::Open {
            let rest = &HTTP2_PREFACE[state.preface_bytes..];
            let compared = rest.len().min(bytes.len());
            state.preface_bytes += compared;
            state.protocol = match rest[..compared] == bytes[..compared] {
                false => Protocol::Http1,
                true if compared == rest.len() => Protocol::Http2,
                true => Protocol::Open,
            };
        }
        if state.requests > 0 {
            return;
        }
        state.idle_bytes = state.idle_bytes.saturating_add(bytes.len());
        // HTTP/2's frames do not show here where a head begins: between requests it is idle.
        if state.phase == Phase::Idle && state.protocol == Protocol::Http1 {
            (state.phase, state.since) = (Phase::Head, Instant::now());
        }
    }

    /// Why reading from it was broken off, if it was.
    pub(crate) fn flooded(&self) -> Option<&'static str> {
        self.state().is_flood().then_some(FLOOD)
    }

    /// A request's head is complete. It is at work until the guard, which goes with the answer's
    /// body, is dropped.
    pub(crate) fn request(self: &Arc<Self>) -> AtWork {
        let mut state = self.state();
        state.requests += 1;
        state.idle_bytes = 0;
        drop(state);
        AtWork {
            activity: Arc::clone(self),
        }
    }

    /// Returns when no request is at work any more, or was none lately.
    pub(crate) async fn rest(&self) {
        self.rests.notified().await;
    }

    /// When this connection is to be cut, and for what; none while requests are at work.
    pub(crate) fn deadline(&self, limits: &Limits) -> Option<(Instant, &'static str)> {
        let state = self.state();
        match state.phase {
            _ if state.requests > 0 => None,
            _ if state.is_flood() => Some((state.since, FLOOD)),
            Phase::Head => Some((state.since + limits.header_read_timeout, "header_read_timeout")),
            Phase::Idle => Some((state.since + limits.keep_alive_timeout, "keep_alive_timeout")),
        }
    }
}

/// A request at work.
pub(crate) struct AtWork {
    activity: Arc<Activity>,
}

impl Drop for AtWork {
    fn drop(&mut self) {
        let mut state = self.activity.state();
        state.requests -= 1;
        if state.requests == 0 {
            (state.phase, state.since) = (Phase::Idle, Instant::now());
            drop(state);
            self.activity.rests.notify_one();
        }
    }
}

/// An answer's body that keeps its request at work until it was written.
pub(crate) struct WatchedBody {
    pub(crate) body: Body,
    pub(crate) _at_work: AtWork,
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A socket that reports what it reads, and fails a write that makes too little progress for too long.
pub(crate) struct WatchedSocket<S> {
    socket: S,
    activity: Arc<Activity>,
    write_stall_timeout: Duration,
    /// Runs while something waits to be written.
    stall: Option<Pin<Box<Sleep>>>,
    /// What the peer has taken in that time.
    taken_bytes: usize,
}

impl<S> WatchedSocket<S> {
    pub(crate) fn new(socket: S, activity: Arc<Activity>, write_stall_timeout: Duration) -> Self {
        Self {
            socket,
            activity,
            write_stall_timeout,
            stall: None,
            taken_bytes: 0,
        }
    }

    /// The peer has taken so much.
    fn took(&mut self, bytes: usize) {
        if self.stall.is_none() {
            return;
        }
        self.taken_bytes += bytes;
        if self.taken_bytes >= WRITTEN_BYTES_MIN {
            self.nothing_waits();
        }
    }

    fn nothing_waits(&mut self) {
        self.stall = None;
        self.taken_bytes = 0;
    }

    fn progress<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            return polled;
        }
        let timeout = self.write_stall_timeout;
        let stall = self.stall.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        ready!(stall.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the peer takes too little",
        )))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WatchedSocket<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, buf))?;
        let received = &buf.filled()[before..];
        if !received.is_empty() {
            self.activity.received(received);
            if let Some(reason) = self.activity.flooded() {
                return Poll::Ready(Err(io::Error::other(reason)));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WatchedSocket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.socket).poll_write(cx, buf);
        if let Poll::Ready(Ok(bytes)) = polled {
            self.took(bytes);
        }
        self.progress(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        if let Poll::Ready(Ok(bytes)) = polled {
            self.took(bytes);
        }
        self.progress(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.socket).poll_flush(cx);
        if polled.is_ready() {
            // hyper flushes when it has written all that it had.
            self.nothing_waits();
        }
        self.progress(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.socket).poll_shutdown(cx);
        self.progress(cx, polled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(activity: &Activity) -> Option<&'static str> {
        activity.deadline(&Limits::default()).map(|(_, reason)| reason)
    }

    #[tokio::test]
    async fn heads_are_timed_from_the_accept_and_from_their_first_byte() {
        let activity = Activity::new();
        assert_eq!(phase(&activity), Some("header_read_timeout"));
        activity.received(b"GET /");
        assert_eq!(phase(&activity), Some("header_read_timeout"));
        let at_work = activity.request();
        activity.received(b"the body");
        assert_eq!(phase(&activity), None);
        drop(at_work);
        assert_eq!(phase(&activity), Some("keep_alive_timeout"));
        activity.received(b"G");
        assert_eq!(phase(&activity), Some("header_read_timeout"));
    }

    #[tokio::test]
    async fn http2_is_idle_between_requests_whatever_its_frames() {
        let activity = Activity::new();
        activity.received(b"PRI * HT");
        assert_eq!(phase(&activity), Some("header_read_timeout"));
        activity.received(b"TP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
        assert_eq!(phase(&activity), Some("header_read_timeout"), "it has asked nothing");
        drop(activity.request());
        assert_eq!(phase(&activity), Some("keep_alive_timeout"));
        activity.received(b"a ping");
        assert_eq!(phase(&activity), Some("keep_alive_timeout"));
    }

    #[tokio::test]
    async fn http2_that_only_pings_is_cut_at_once_and_one_that_asks_is_not() {
        let activity = Activity::new();
        activity.received(HTTP2_PREFACE);
        let pings = [0; 17 << 10];
        for _ in 0..16 {
            activity.received(&pings);
        }
        assert_eq!(phase(&activity), Some("idle_flood"));
        let at_work = activity.request();
        activity.received(&[0; 1 << 20]);
        drop(at_work);
        assert_eq!(phase(&activity), Some("keep_alive_timeout"));
        let http1 = Activity::new();
        http1.received(&[b'x'; 1 << 20]);
        assert_eq!(phase(&http1), Some("header_read_timeout"));
    }

    #[tokio::test]
    async fn a_write_that_stalls_fails() {
        use tokio::io::AsyncWriteExt;
        let (ours, _theirs) = tokio::io::duplex(16);
        let mut socket = WatchedSocket::new(ours, Activity::new(), Duration::from_millis(10));
        socket.write_all(&[0; 16]).await.unwrap();
        let stalled = tokio::time::timeout(Duration::from_secs(20), socket.write_all(&[0; 1])).await;
        let error = stalled.expect("it fails in time").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_peer_that_takes_a_little_now_and_then_is_cut() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (ours, mut theirs) = tokio::io::duplex(16);
        let stall = Duration::from_millis(200);
        let mut socket = WatchedSocket::new(ours, Activity::new(), stall);
        let slow = async {
            let mut piece = [0; 16];
            loop {
                tokio::time::sleep(stall / 8).await;
                theirs.read_exact(&mut piece).await.unwrap();
            }
        };
        let all = vec![0; WRITTEN_BYTES_MIN];
        tokio::select! {
            written = socket.write_all(&all) => assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut),
            () = slow => unreachable!("it reads for ever"),
        }
    }

    #[tokio::test]
    async fn the_time_of_a_stall_ends_when_all_is_written() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (ours, mut theirs) = tokio::io::duplex(16);
        let mut socket = WatchedSocket::new(ours, Activity::new(), Duration::from_secs(20));
        let mut piece = [0; 32];
        let (written, read) = tokio::join!(socket.write_all(&[0; 32]), theirs.read_exact(&mut piece));
        written.unwrap();
        read.unwrap();
        assert!(socket.stall.is_some(), "it had to wait once");
        socket.flush().await.unwrap();
        assert!(socket.stall.is_none());
    }
}
