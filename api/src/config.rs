//! What a node's operator may set, and every bound of this crate with its reason.

use std::time::Duration;

use prometheus::Registry;

/// How the HTTP side of a node is set up.
#[derive(Debug, Clone, Default)]
pub struct ApiConfig {
    pub limits: Limits,
    /// `/metrics` shows this registry. The caller may register its own metrics in it (a clone
    /// shares the content); names that begin with `quorate_http_` belong to this crate, so a
    /// registry serves one router.
    pub registry: Registry,
}

/// Bounds of time, memory and numbers. Each says what happens when it is reached.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Open connections. One more is answered with a bare 503 and closed: a client with several
    /// endpoints then goes on at once, where a paused accept would leave it hanging.
    pub connections_max: usize,
    /// Requests at work, without the open streams and the health routes. One more gets 429 `overloaded`.
    pub requests_in_flight_max: usize,
    /// Open event streams. One more gets 429 `overloaded`.
    pub streams_max: usize,
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
    /// A peer that takes not one byte of what is written to it is cut off after this. Longer than
    /// `slow_consumer_after`, so that a slow reader can still be told.
    pub write_stall_timeout: Duration,
    /// A stream whose reader's buffer stays full for this long gets `slow_consumer` and the end.
    pub slow_consumer_after: Duration,
    /// A stream says where it is at least this often. The contract promises 15 s.
    pub bookmark_interval: Duration,
    /// How long requests under way may take to finish once the node shuts down; then they are cut.
    pub shutdown_grace: Duration,
    /// `Request-Timeout-Ms` when the request does not say.
    pub request_timeout: Duration,
}

/// The largest `Request-Timeout-Ms`, by contract.
pub const REQUEST_TIMEOUT_MAX_MS: u64 = 60_000;

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            requests_in_flight_max: 4096,
            streams_max: 10_000,
            header_bytes_max: 32 << 10,
            header_count_max: 100,
            body_bytes_max: quorate_state_machine::limits::BODY_BYTES_MAX,
            header_read_timeout: Duration::from_secs(10),
            keep_alive_timeout: Duration::from_secs(75),
            body_read_timeout: Duration::from_secs(20),
            write_stall_timeout: Duration::from_secs(30),
            slow_consumer_after: Duration::from_secs(10),
            bookmark_interval: Duration::from_secs(10),
            shutdown_grace: Duration::from_secs(10),
            request_timeout: Duration::from_millis(5000),
        }
    }
}
