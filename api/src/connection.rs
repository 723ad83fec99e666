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
use tokio::time::{Instant, Sleep};

use crate::config::Limits;

/// How an HTTP/2 connection begins (RFC 9113, section 3.4). Half of it is half a head.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[derive(Debug)]
pub(crate) struct Activity {
    /// Held for a few instructions, never across an await.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    requests: usize,
    phase: Phase,
    since: Instant,
    /// The connection's first bytes, which tell the protocol.
    preface: Vec<u8>,
    is_http2: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// A head is awaited or arriving: the time runs from the accept, or from its first byte.
    Head,
    /// Between requests.
    Idle,
}

impl Activity {
    pub(crate) fn new() -> Arc<Self> {
        let state = State {
            requests: 0,
            phase: Phase::Head,
            since: Instant::now(),
            preface: Vec::new(),
            is_http2: false,
        };
        Arc::new(Self {
            state: Mutex::new(state),
        })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the lock")
    }

    fn received(&self, bytes: &[u8]) {
        let mut state = self.state();
        if state.preface.len() < HTTP2_PREFACE.len() {
            let missing = HTTP2_PREFACE.len() - state.preface.len();
            state.preface.extend(bytes.iter().take(missing));
            if state.preface == HTTP2_PREFACE {
                // Its frames do not show here where a head begins; a silent one is idle.
                state.is_http2 = true;
                (state.phase, state.since) = (Phase::Idle, Instant::now());
            }
        }
        if state.requests == 0 && state.phase == Phase::Idle && !state.is_http2 {
            (state.phase, state.since) = (Phase::Head, Instant::now());
        }
    }

    /// A request's head is complete. It is at work until the guard, which goes with the answer's
    /// body, is dropped.
    pub(crate) fn request(self: &Arc<Self>) -> AtWork {
        self.state().requests += 1;
        AtWork {
            activity: Arc::clone(self),
        }
    }

    /// When this connection is to be cut, and for what; none while requests are at work.
    pub(crate) fn deadline(&self, limits: &Limits) -> Option<(Instant, &'static str)> {
        let state = self.state();
        match state.phase {
            _ if state.requests > 0 => None,
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

/// A socket that reports what it reads, and fails a write that makes no progress for too long.
pub(crate) struct WatchedSocket<S> {
    socket: S,
    activity: Arc<Activity>,
    write_stall_timeout: Duration,
    /// Runs while the peer takes nothing.
    stall: Option<Pin<Box<Sleep>>>,
}

impl<S> WatchedSocket<S> {
    pub(crate) fn new(socket: S, activity: Arc<Activity>, write_stall_timeout: Duration) -> Self {
        Self {
            socket,
            activity,
            write_stall_timeout,
            stall: None,
        }
    }

    fn progress<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stall = None;
            return polled;
        }
        let timeout = self.write_stall_timeout;
        let stall = self.stall.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        ready!(stall.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes nothing")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WatchedSocket<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, buf))?;
        let received = &buf.filled()[before..];
        if !received.is_empty() {
            self.activity.received(received);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WatchedSocket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.progress(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        self.progress(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.socket).poll_flush(cx);
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
        activity.received(b"TP/2.0\r\n\r\nSM\r\n\r\n");
        assert_eq!(phase(&activity), Some("keep_alive_timeout"));
        activity.received(b"a ping");
        assert_eq!(phase(&activity), Some("keep_alive_timeout"));
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
}
