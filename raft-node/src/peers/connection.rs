//! A dialled connection for calls: many in flight, each reply matched to its call by number.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::SplitStream;
use futures::{SinkExt, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::frame::{Frame, Purpose, Reply, Request, decode_frame, encode_frame};
use super::handshake::{Greeted, HandshakeError, Wire, greet};
use super::pool::Pool;

/// Frames waiting for the socket. When it is full the caller waits: the peer or the network is
/// slower than we are, and the callers' own deadlines decide.
const SEND_QUEUE_FRAMES: usize = 256;

#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("failed to connect to {addr}: {error}")]
    Connect { addr: String, error: std::io::Error },
    #[error("failed to connect to {addr} within {ms} ms")]
    Timeout { addr: String, ms: u128 },
    #[error("handshake with {addr} failed: {error}")]
    Handshake { addr: String, error: HandshakeError },
    #[error("no address is known for node {0}")]
    NoAddress(u64),
    #[error("{0}")]
    Failed(String),
    #[error("the last attempt failed a moment ago: {0}")]
    BackingOff(String),
}

/// Why a call has no reply.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("{0}")]
    NotSent(#[from] DialError),
    /// The connection ended before the request was handed to it.
    #[error("the connection ended before the request was sent")]
    Closed,
    /// It was or may have been sent: the peer may have acted on it.
    #[error("the connection ended before the reply came")]
    Lost,
    #[error("no reply within {0} ms")]
    Timeout(u128),
    #[error("the peer sent another kind of reply: {0}")]
    Protocol(String),
}

/// Dials an address and finds out who answers.
pub(super) async fn reach(
    addr: String,
    pool: &Pool,
    to: u64,
    purpose: Purpose,
    within: Duration,
) -> Result<(Wire, Greeted), DialError> {
    let link = match timeout(within, pool.transport.connect(&addr)).await {
        Ok(Ok(link)) => link,
        Ok(Err(error)) => return Err(DialError::Connect { addr, error }),
        Err(_) => {
            return Err(DialError::Timeout {
                addr,
                ms: within.as_millis(),
            });
        }
    };
    greet(link, &pool.book, to, purpose)
        .await
        .map_err(|error| DialError::Handshake { addr, error })
}

type Pending = Arc<Mutex<BTreeMap<u64, oneshot::Sender<Reply>>>>;

#[derive(Debug)]
pub struct Connection {
    pub greeted: Greeted,
    next_id: AtomicU64,
    /// Bounded by `SEND_QUEUE_FRAMES`.
    send: mpsc::Sender<Bytes>,
    /// Held for a look-up only, never across an await. Bounded by the callers: each has at most one
    /// entry for each call that it waits for.
    pending: Pending,
    /// Milliseconds after `began` at which the peer last said something.
    heard_ms: Arc<AtomicU64>,
    began: Instant,
    closed: CancellationToken,
    _close_on_drop: DropGuard,
}

impl Connection {
    pub async fn dial(
        addr: String,
        pool: &Pool,
        to: u64,
        purpose: Purpose,
        within: Duration,
    ) -> Result<Self, DialError> {
        let (wire, greeted) = reach(addr, pool, to, purpose, within).await?;
        Ok(Self::start(wire, greeted))
    }

    pub(super) fn start(wire: Wire, greeted: Greeted) -> Self {
        let (mut sink, stream) = wire.split();
        let (send, mut queue) = mpsc::channel::<Bytes>(SEND_QUEUE_FRAMES);
        let pending = Pending::default();
        let closed = CancellationToken::new();

        let stop = closed.clone();
        tokio::spawn(async move {
            let write_all = async {
                while let Some(frame) = queue.recv().await {
                    sink.feed(frame).await?;
                    // Whatever else waits goes out with the same flush.
                    while let Ok(frame) = queue.try_recv() {
                        sink.feed(frame).await?;
                    }
                    sink.flush().await?;
                }
                std::io::Result::Ok(())
            };
            tokio::select! {
                () = stop.cancelled() => {}
                result = write_all => if let Err(error) = result {
                    tracing::debug!(%error, "writing to a peer failed");
                },
            }
            stop.cancel();
        });
        let began = Instant::now();
        let heard_ms = Arc::new(AtomicU64::new(0));
        let heard = {
            let heard_ms = heard_ms.clone();
            move || {
                let now_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                heard_ms.store(now_ms, Ordering::Relaxed);
            }
        };
        tokio::spawn(read_replies(stream, pending.clone(), closed.clone(), heard));
        Self {
            greeted,
            next_id: AtomicU64::new(1),
            send,
            pending,
            heard_ms,
            began,
            _close_on_drop: closed.clone().drop_guard(),
            closed,
        }
    }

    /// How long the peer has said nothing.
    pub fn silent_for(&self) -> Duration {
        let heard = Duration::from_millis(self.heard_ms.load(Ordering::Relaxed));
        self.began.elapsed().saturating_sub(heard)
    }

    /// Ends the connection; whoever waits for a reply on it is told that it is lost.
    pub fn hang_up(&self) {
        self.closed.cancel();
    }

    pub fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Returns when the connection has ended, whoever ended it.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// One request and its reply.
    pub async fn call(&self, request: Request, within: Duration) -> Result<Reply, CallError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let frame = encode_frame(&Frame { id, body: request });
        let (tx, rx) = oneshot::channel();
        let _forget = Forget {
            pending: &self.pending,
            id,
        };
        self.pending
            .lock()
            .expect("no panic while the lock is held")
            .insert(id, tx);
        let sent = async {
            tokio::select! {
                biased;
                () = self.closed.cancelled() => Err(CallError::Closed),
                sent = self.send.send(frame) => sent.map_err(|_| CallError::Closed),
            }
        };
        let exchange = async {
            sent.await?;
            rx.await.map_err(|_| CallError::Lost)
        };
        timeout(within, exchange)
            .await
            .unwrap_or_else(|_| Err(CallError::Timeout(within.as_millis())))
    }
}

/// Removes a call from the table however it ends, so that a caller who gave up leaves nothing.
struct Forget<'a> {
    pending: &'a Pending,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.pending
            .lock()
            .expect("no panic while the lock is held")
            .remove(&self.id);
    }
}

async fn read_replies(mut stream: SplitStream<Wire>, pending: Pending, closed: CancellationToken, heard: impl Fn()) {
    loop {
        let next = tokio::select! {
            () = closed.cancelled() => break,
            next = stream.next() => next,
        };
        let frame: Frame<Reply> = match next.map(|bytes| decode_frame(&bytes?)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                tracing::debug!(%error, "reading from a peer failed");
                break;
            }
            None => break,
        };
        heard();
        let waiting = pending
            .lock()
            .expect("no panic while the lock is held")
            .remove(&frame.id);
        if let Some(tx) = waiting {
            let _ = tx.send(frame.body);
        }
    }
    closed.cancel();
    // Dropping the senders tells every caller that the connection is lost.
    pending.lock().expect("no panic while the lock is held").clear();
}
