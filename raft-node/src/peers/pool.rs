//! One connection for each peer and purpose, dialled when it is needed.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::book::PeerBook;
use super::connection::{CallError, Connection, DialError};
use super::frame::{Purpose, Reply, Request};
use super::handshake::HandshakeError;
use super::snapshot::Transfers;
use super::transport::SharedTransport;
use crate::metrics::PeerMetrics;

/// A peer that refused a connection a moment ago is not dialled again before this: a dead node on
/// this host refuses at once, and each write, read and heartbeat would dial it.
const REDIAL_AFTER: Duration = Duration::from_millis(20);
/// A machine that is gone does not answer at all; nobody waits longer for it.
const DIAL_TIMEOUT: Duration = Duration::from_millis(1000);

/// A peer that has been asked and has said nothing for so long is dialled anew: after a partition
/// that dropped packets, TCP would wait for its next retransmission, which may be seconds away.
const SILENCE_MAX: Duration = Duration::from_millis(1500);

/// What the pool asks of the node's core, and tells it.
pub struct Hooks {
    /// Whether this node leads and a majority has lately answered it.
    pub leads_with_majority: Box<dyn Fn() -> bool + Send + Sync>,
    /// A peer of this cluster says that this node was removed from it.
    pub removed: Box<dyn Fn(u64) + Send + Sync>,
    /// Whether this node campaigns in this term because the leader's process is gone.
    pub is_failover: Box<dyn Fn(u64) -> bool + Send + Sync>,
}

/// What dialling a peer anew says about its process.
pub enum Probe {
    /// It answered, and this is the connection.
    Met(Box<Connection>),
    /// Nobody listens where it is to be found: its machine says so.
    Refused,
    /// Nothing can be said: no answer in time, or a connection that ended, which a bad link may end as well.
    Unclear,
}

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hooks")
    }
}

#[derive(Debug)]
pub struct Pool {
    pub book: Arc<PeerBook>,
    pub transport: SharedTransport,
    pub metrics: PeerMetrics,
    pub transfers: Arc<Transfers>,
    /// Set once, at the start.
    hooks: OnceLock<Hooks>,
    /// At most one slot for each peer and purpose. Held for a look-up only, never across an await.
    slots: Mutex<BTreeMap<(u64, Purpose), Slot>>,
}

type Dialled = Result<Arc<Connection>, String>;

#[derive(Debug, Default)]
struct Slot {
    connection: Option<Arc<Connection>>,
    /// One dial serves all who wait for it, and goes on when one of them gives up: a heartbeat's
    /// patience is shorter than a handshake with a busy machine may take.
    dialling: Option<watch::Receiver<Option<Dialled>>>,
    failed: Option<(Instant, String)>,
}

impl Pool {
    pub fn new(book: Arc<PeerBook>, transport: SharedTransport, metrics: PeerMetrics) -> Arc<Self> {
        Arc::new(Self {
            book,
            transport,
            metrics,
            transfers: Arc::default(),
            hooks: OnceLock::new(),
            slots: Mutex::default(),
        })
    }

    /// Set when the node's core exists, which needs the pool before.
    pub fn set_hooks(&self, hooks: Hooks) {
        let was_set = self.hooks.set(hooks).is_err();
        assert!(!was_set, "a pool belongs to one node");
    }

    pub fn leads_with_majority(&self) -> bool {
        self.hooks.get().is_some_and(|hooks| (hooks.leads_with_majority)())
    }

    pub fn is_failover(&self, term: u64) -> bool {
        self.hooks.get().is_some_and(|hooks| (hooks.is_failover)(term))
    }

    /// Dials a peer anew, whatever connections there are, to see whether its process lives.
    pub async fn probe(&self, to: u64) -> Probe {
        let addrs = self.book.peer_addrs(to);
        let mut refused = !addrs.is_empty();
        for addr in addrs {
            match Connection::dial(addr, self, to, Purpose::Control, DIAL_TIMEOUT).await {
                Ok(connection) => return Probe::Met(Box::new(connection)),
                Err(DialError::Connect { error, .. }) if error.kind() == ErrorKind::ConnectionRefused => {}
                Err(error) => {
                    tracing::debug!(peer = to, %error, "a probe said nothing");
                    refused = false;
                }
            }
        }
        match refused {
            true => Probe::Refused,
            false => Probe::Unclear,
        }
    }

    /// The connection to a peer, dialled if there is none.
    pub async fn connection(
        self: &Arc<Self>,
        to: u64,
        purpose: Purpose,
        within: Duration,
    ) -> Result<Arc<Connection>, DialError> {
        let mut dialled = {
            let mut slots = self.slots.lock().expect("no panic while the lock is held");
            let slot = slots.entry((to, purpose)).or_default();
            if let Some(connection) = slot.connection.as_ref().filter(|connection| !connection.is_closed()) {
                return Ok(connection.clone());
            }
            slot.connection = None;
            match &slot.dialling {
                Some(dialled) => dialled.clone(),
                None => {
                    if let Some((at, error)) = &slot.failed
                        && at.elapsed() < REDIAL_AFTER
                    {
                        return Err(DialError::BackingOff(error.clone()));
                    }
                    let (tx, rx) = watch::channel(None);
                    slot.dialling = Some(rx.clone());
                    let pool = self.clone();
                    tokio::spawn(async move {
                        let dialled = pool.dial(to, purpose).await;
                        tx.send_replace(Some(dialled));
                    });
                    rx
                }
            }
        };
        let waited = tokio::time::timeout(within, dialled.wait_for(Option::is_some)).await;
        match waited {
            Ok(Ok(dialled)) => dialled.clone().expect("waited for it").map_err(DialError::Failed),
            Ok(Err(_)) => Err(DialError::Failed("the dial was given up".to_owned())),
            Err(_) => Err(DialError::Timeout {
                addr: format!("node {to}"),
                ms: within.as_millis(),
            }),
        }
    }

    /// Dials once and leaves the result in the slot.
    async fn dial(&self, to: u64, purpose: Purpose) -> Dialled {
        let mut dialled = Err(DialError::NoAddress(to));
        for addr in self.book.peer_addrs(to) {
            dialled = Connection::dial(addr, self, to, purpose, DIAL_TIMEOUT).await;
            if dialled.is_ok() {
                break;
            }
        }
        if let Err(DialError::Handshake {
            error: HandshakeError::Refused { removed: true, .. },
            ..
        }) = &dialled
            && let Some(hooks) = self.hooks.get()
        {
            (hooks.removed)(to);
        }
        let mut slots = self.slots.lock().expect("no panic while the lock is held");
        let slot = slots.entry((to, purpose)).or_default();
        slot.dialling = None;
        match dialled {
            Ok(connection) => {
                if slot.failed.take().is_some() {
                    tracing::info!(peer = to, ?purpose, "reached the peer again");
                }
                let connection = Arc::new(connection);
                slot.connection = Some(connection.clone());
                Ok(connection)
            }
            Err(error) => {
                // Once for each time that the peer goes away, not once for each attempt.
                if slot.failed.is_none() {
                    tracing::warn!(peer = to, ?purpose, %error, "failed to reach the peer");
                }
                let error = error.to_string();
                slot.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Ends all connections to a peer, to dial it anew.
    fn hang_up(&self, to: u64) {
        let slots = self.slots.lock().expect("no panic while the lock is held");
        for ((peer, _), slot) in slots.iter() {
            if let Some(connection) = slot.connection.as_ref().filter(|_| *peer == to) {
                connection.hang_up();
            }
        }
    }

    /// One request and its reply, over the peer's connection for this purpose.
    pub async fn call(
        self: &Arc<Self>,
        to: u64,
        purpose: Purpose,
        request: Request,
        within: Duration,
    ) -> Result<Reply, CallError> {
        let start = Instant::now();
        let connection = self.connection(to, purpose, within).await?;
        let reply = connection.call(request, within.saturating_sub(start.elapsed())).await;
        if matches!(reply, Err(CallError::Timeout(_)))
            && purpose == Purpose::Control
            && connection.silent_for() >= SILENCE_MAX
        {
            self.hang_up(to);
        }
        let reply = reply?;
        if purpose == Purpose::Control {
            self.metrics.round_trip(to, start.elapsed());
        }
        Ok(reply)
    }
}
