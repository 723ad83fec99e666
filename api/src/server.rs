//! The sockets: accepts connections within a bound, runs HTTP/1.1 and HTTP/2 over them, cuts those
//! that stall, and at the end lets requests finish.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use futures::future::BoxFuture;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use crate::app::App;
use crate::config::{ApiConfig, Limits};
use crate::connection::{Activity, WatchedBody, WatchedSocket};
use crate::metrics::Gauged;
use crate::replica::SharedReplica;
use crate::routes;
use crate::sign_in::Peer;

/// How long to wait when the system has no file descriptor for a new connection. It clears when
/// another one closes, which nothing announces.
const ACCEPT_RETRY_AFTER: Duration = Duration::from_millis(50);

/// Requests at once on one HTTP/2 connection; the client waits beyond that. A proxy carries the
/// event streams of many users over one connection.
const HTTP2_STREAMS_MAX: u32 = 256;
/// What a peer may send of bodies that nobody has read yet: of one request, and of a connection's
/// all. Bodies are read as they come, so this much waits only for a moment; 256 KiB on 16,000
/// connections would be 4 GiB, and to send it takes as many requests at work, of which there are
/// fewer. A line with a round trip of 300 ms still carries a body of 4 MiB in 10 s of its 20.
const HTTP2_STREAM_WINDOW: u32 = 128 << 10;
const HTTP2_CONNECTION_WINDOW: u32 = 256 << 10;
/// What h2 takes of one answer before the peer has taken it. The rest is counted ([`crate::answer`]).
const HTTP2_SEND_BYTES_MAX: usize = 64 << 10;
/// The smallest largest frame there is: a larger one only makes buffers larger.
const HTTP2_FRAME_BYTES_MAX: u32 = 16 << 10;
/// Requests that a peer has taken back before they were begun (rapid reset, CVE-2023-44487), and
/// that h2 has ended because of a peer's mistakes (RUSTSEC-2024-0003). One more ends the connection.
const HTTP2_PENDING_RESETS_MAX: usize = 20;
const HTTP2_ERROR_RESETS_MAX: usize = 128;
/// How often a quiet HTTP/2 connection is asked whether it lives, and how long it may take to say.
const HTTP2_PING: Duration = Duration::from_secs(20);

/// Written to a connection beyond the bound, before any of its bytes are read.
const TOO_MANY_CONNECTIONS: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// Serves until `shutdown` ends; then accepts nothing more, ends the streams, lets the requests
/// under way finish within [`Limits::shutdown_grace`], and returns.
///
/// # Errors
/// None at present: what goes wrong with one connection ends that connection.
pub async fn serve(
    listener: TcpListener,
    replica: SharedReplica,
    config: ApiConfig,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let app = App::new(replica, config);
    let server = Server {
        router: routes::build(Arc::clone(&app)),
        places: Arc::new(Semaphore::new(app.limits.connections_max)),
        connections: TaskTracker::new(),
        cut: CancellationToken::new(),
        app,
    };
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                Ok((socket, peer)) => server.accept(socket, peer),
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a connection");
                    tokio::time::sleep(ACCEPT_RETRY_AFTER).await;
                }
            },
        }
    }
    drop(listener);
    server.close().await;
    Ok(())
}

/// Asked after 15 s of silence, and given up 15 s later.
fn keep_alive() -> TcpKeepalive {
    let every = Duration::from_secs(5);
    TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(every)
        .with_retries(3)
}

struct Server {
    app: Arc<App>,
    router: Router,
    places: Arc<Semaphore>,
    connections: TaskTracker,
    /// Ends what is left after the grace.
    cut: CancellationToken,
}

impl Server {
    fn accept(&self, socket: TcpStream, peer: SocketAddr) {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            self.app.metrics.connections_cut.with_label_values(&["too_many"]).inc();
            // Best effort, and never waited for: the socket's buffer is empty, so it fits.
            let _ = socket.try_write(TOO_MANY_CONNECTIONS);
            return;
        };
        // Who vanishes without a word, in the middle of a wait or a stream, is noticed.
        if let Err(error) = SockRef::from(&socket).set_tcp_keepalive(&keep_alive()) {
            tracing::debug!(%error, %peer, "failed to set TCP keep-alive");
        }
        // Answers are small and waited for.
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, %peer, "failed to set TCP_NODELAY");
        }
        let connection = run(
            Arc::clone(&self.app),
            self.router.clone(),
            socket,
            peer,
            self.cut.clone(),
            place,
        );
        self.connections.spawn(connection);
    }

    async fn close(self) {
        self.app.closing.cancel();
        self.connections.close();
        if tokio::time::timeout(self.app.limits.shutdown_grace, self.connections.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                connections = self.connections.len(),
                "cutting connections that did not finish in time"
            );
            self.cut.cancel();
            self.connections.wait().await;
        }
    }
}

async fn run(
    app: Arc<App>,
    router: Router,
    socket: TcpStream,
    peer: SocketAddr,
    cut: CancellationToken,
    _place: OwnedSemaphorePermit,
) {
    let _counted = Gauged::new(&app.metrics.connections);
    let activity = Activity::new();
    let upgrade = Upgrade::default();
    let io = WatchedSocket::new(socket, Arc::clone(&activity), app.limits.write_stall_timeout);
    let service = {
        let (activity, upgrade) = (Arc::clone(&activity), upgrade.clone());
        service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let at_work = activity.request();
            // A router is always ready.
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(Peer(peer));
            request.extensions_mut().insert(upgrade.clone());
            let answered = router.clone().call(request);
            async move {
                answered.await.map(|answer| {
                    answer.map(|body| WatchedBody {
                        body,
                        _at_work: at_work,
                    })
                })
            }
        })
    };
    let builder = protocols(&app.limits);
    let mut connection = std::pin::pin!(builder.serve_connection_with_upgrades(TokioIo::new(io), service));
    let mut is_closing = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    if let Some(reason) = activity.flooded() {
                        app.metrics.connections_cut.with_label_values(&[reason]).inc();
                    }
                    tracing::debug!(%error, %peer, "a connection failed");
                    return;
                }
                break;
            }
            () = app.closing.cancelled(), if !is_closing => {
                is_closing = true;
                connection.as_mut().graceful_shutdown();
            }
            () = cut.cancelled() => return,
            reason = overdue(&activity, &app.limits) => {
                app.metrics.connections_cut.with_label_values(&[reason]).inc();
                return;
            }
        }
    }
    // A socket keeps the connection's place, and is waited for and cut with it.
    if let Some(socket) = upgrade.take() {
        tokio::select! {
            () = socket => {}
            () = cut.cancelled() => {}
        }
    }
}

/// How a connection goes on after HTTP. A request that becomes a socket leaves it here.
#[derive(Clone, Default)]
pub(crate) struct Upgrade(Arc<Mutex<Option<BoxFuture<'static, ()>>>>);

impl Upgrade {
    pub(crate) fn go_on_with(&self, socket: impl Future<Output = ()> + Send + 'static) {
        *self.slot() = Some(Box::pin(socket));
    }

    fn take(&self) -> Option<BoxFuture<'static, ()>> {
        self.slot().take()
    }

    /// Held for one move, never across an await.
    fn slot(&self) -> MutexGuard<'_, Option<BoxFuture<'static, ()>>> {
        self.0.lock().expect("nothing panics while it holds the lock")
    }
}

/// Ends when the connection has been silent, or its head incomplete, for too long.
async fn overdue(activity: &Activity, limits: &Limits) -> &'static str {
    // A deadline that begins between two looks is noticed at most this much late.
    let look = limits.header_read_timeout / 4;
    loop {
        let now = Instant::now();
        match activity.deadline(limits) {
            Some((deadline, reason)) if deadline <= now => return reason,
            Some((deadline, _)) => tokio::time::sleep_until(deadline.min(now + look)).await,
            // A stream may be at work for days, and is not looked at meanwhile.
            None => activity.rest().await,
        }
    }
}

fn protocols(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // `Activity` does it, for silent and idle connections as well.
        .header_read_timeout(None)
        .max_headers(limits.header_count_max)
        .max_buf_size(limits.header_bytes_max);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX))
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .initial_stream_window_size(HTTP2_STREAM_WINDOW)
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
        .max_send_buf_size(HTTP2_SEND_BYTES_MAX)
        .max_frame_size(HTTP2_FRAME_BYTES_MAX)
        .max_pending_accept_reset_streams(HTTP2_PENDING_RESETS_MAX)
        .max_local_error_reset_streams(HTTP2_ERROR_RESETS_MAX)
        .keep_alive_interval(HTTP2_PING)
        .keep_alive_timeout(HTTP2_PING);
    builder
}
