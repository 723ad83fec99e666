//! What a node's operator may set, and every bound of this crate with its reason.

use std::time::Duration;

use prometheus::Registry;

use crate::accounts::Accounts;

/// How the HTTP side of a node is set up.
#[derive(Debug, Clone, Default)]
pub struct ApiConfig {
    pub limits: Limits,
    pub accounts: Accounts,
    /// `/metrics` shows this registry. The caller may register its own metrics in it (a clone
    /// shares the content); names that begin with `quorate_http_` belong to this crate, so a
    /// registry serves one router.
    pub registry: Registry,
}

/// Bounds of time, memory and numbers. Each says what happens when it is reached.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Open connections; with a stream on it one takes 26 kB. One more is answered with a bare 503 and closed: a
    /// client with several endpoints then goes on at once, where a paused accept would leave it hanging.
    pub connections_max: usize,
    /// Reads at work. One more gets 429 `overloaded`, as with each of the next five. Fewer than may
    /// wait for one round of linearizable reads.
    pub reads_max: usize,
    /// Writes at work: as many as may wait at the leader.
    pub writes_max: usize,
    /// Requests to the cluster's own routes at work: there are few who ask.
    pub admin_max: usize,
    /// Requests that wait by agreement, for a lock or for news: each takes a few KiB.
    pub waits_max: usize,
    /// Open event streams: 12,000 and some who come back before they are known to have gone. Fewer than
    /// connections, so that those who only listen leave room for those who ask.
    pub streams_max: usize,
    /// Open WebSockets. One more gets 429 `overloaded`. As many as connections: each is one.
    pub sockets_max: usize,
    /// Requests at work on one WebSocket. With so many it is not read until one is answered: TCP holds the
    /// client back, and no other client notices. Enough to fill an entry of the log with three others.
    pub socket_in_flight_max: usize,
    /// Requests whose bodies are still on their way. As many as connections, because an honest one
    /// over a slow line has one.
    pub bodies_max: usize,
    /// Bytes of all requests' bodies that this node holds, from their arrival to the answer. What
    /// does not fit gets 429 `overloaded`. Buffers grow by doubling, so it may be twice in memory.
    pub bodies_bytes_max: usize,
    /// Bytes of all answers that this node holds until they are written. An answer to a read that
    /// does not fit becomes 429 `overloaded`: a page has up to 32 MiB, and a reader all his time.
    pub answers_bytes_max: usize,
    /// Requests a second that a user may make in the long run, and at once; 0: as many as he
    /// likes. Beyond it he gets 429 `rate_limited`. root is not limited.
    pub user_requests_per_s: u32,
    /// 0: as many as in a second.
    pub user_requests_burst: u32,
    /// Bytes of a request's head; more is answered with a bare 431. hyper needs at least 8 KiB.
    pub header_bytes_max: usize,
    /// Header lines of a request; more is answered with a bare 431.
    pub header_count_max: usize,
    /// A request body, in bytes; more gets 413.
    pub body_bytes_max: usize,
    /// A new connection that sends nothing, or a head that drips in, is closed after this.
    pub header_read_timeout: Duration,
    /// A connection that was answered and asks nothing more is closed after this. Longer than
    /// what clients' pools use is of no use; shorter makes them reconnect.
    pub keep_alive_timeout: Duration,
    /// The whole body must have arrived by then, else 408.
    pub body_read_timeout: Duration,
    /// In each such time, this many bytes of a body must arrive, or all that is left of it; else
    /// 408. So a body that drips holds its place for one window, and one that is merely slow goes on.
    pub body_window: Duration,
    pub body_window_bytes_min: usize,
    /// A peer that takes less than [`WRITTEN_BYTES_MIN`] of what is written to it is cut off after
    /// this. Longer than `slow_consumer_after`, so that a slow reader can still be told.
    pub write_stall_timeout: Duration,
    /// A stream whose reader's buffer stays full for this long gets `slow_consumer` and the end.
    pub slow_consumer_after: Duration,
    /// A WebSocket on which nothing was heard for so long is pinged, and ended after another such time without
    /// an answer. Proxies commonly cut what is silent for a minute.
    pub socket_ping_interval: Duration,
    /// A stream says where it is at least this often. The contract promises 15 s.
    pub bookmark_interval: Duration,
    /// How long requests under way may take to finish once the node shuts down; then they are cut.
    pub shutdown_grace: Duration,
    /// `Request-Timeout-Ms` when the request does not say.
    pub request_timeout: Duration,
}

/// The largest `Request-Timeout-Ms`, by contract.
pub const REQUEST_TIMEOUT_MAX_MS: u64 = 60_000;

/// What a peer must take of a waiting answer within [`Limits::write_stall_timeout`]: 1 KiB a second
/// by default. A peer that takes a byte now and then would else hold an answer for ever.
pub const WRITTEN_BYTES_MIN: usize = 30 << 10;

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 16_000,
            reads_max: 4096,
            writes_max: 4096,
            admin_max: 64,
            waits_max: 10_000,
            streams_max: 14_000,
            sockets_max: 16_000,
            socket_in_flight_max: 256,
            bodies_max: 16_000,
            bodies_bytes_max: 256 << 20,
            answers_bytes_max: 256 << 20,
            user_requests_per_s: 0,
            user_requests_burst: 0,
            header_bytes_max: 32 << 10,
            header_count_max: 100,
            body_bytes_max: quorate_state_machine::limits::BODY_BYTES_MAX,
            header_read_timeout: Duration::from_secs(10),
            keep_alive_timeout: Duration::from_secs(75),
            body_read_timeout: Duration::from_secs(20),
            body_window: Duration::from_secs(5),
            body_window_bytes_min: 5 << 10,
            write_stall_timeout: Duration::from_secs(30),
            slow_consumer_after: Duration::from_secs(10),
            socket_ping_interval: Duration::from_secs(15),
            bookmark_interval: Duration::from_secs(10),
            shutdown_grace: Duration::from_secs(10),
            request_timeout: Duration::from_millis(5000),
        }
    }
}
