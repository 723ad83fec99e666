//! One connection for each peer and purpose, dialled when it is needed.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::append_stream::AppendLink;
use super::book::PeerBook;
use super::connection::{self, CallError, Connection, DialError};
use super::followed::Followed;
use super::frame::{Purpose, Reply, Request};
use super::handshake::{Greeted, HandshakeError, Wire};
use super::snapshot::Transfers;
use super::transport::SharedTransport;
use crate::metrics::PeerMetrics;

/// A peer that refused a connection a moment ago is not dialled again before this: a dead node on
/// this host refuses at once, and each write, read and heartbeat would dial it.
const REDIAL_AFTER: Duration = Duration::from_millis(20);
/// A machine that is gone does not answer at all; nobody waits longer for it, nor for what a peer says at once.
pub const DIAL_TIMEOUT: Duration = Duration::from_millis(1000);

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
    /// At one of its addresses at least, no connection came about in time: more time may help.
    Silent,
    /// Nothing can be said: a connection that ended, which a bad link may end as well, or on which the handshake failed.
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
    pub followed: Followed,
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
    /// Ends the connection for appends, which is its stream's own.
    hang_up: Option<CancellationToken>,
}

impl Slot {
    /// The last attempt failed a moment ago.
    fn backing_off(&self) -> Option<DialError> {
        let (at, error) = self.failed.as_ref()?;
        (at.elapsed() < REDIAL_AFTER).then(|| DialError::BackingOff(error.clone()))
    }

    /// Keeps in mind how dialling ended.
    fn dialled<T>(&mut self, to: u64, purpose: Purpose, dialled: &Result<T, DialError>) {
        match dialled {
            Ok(_) => {
                if self.failed.take().is_some() {
                    tracing::info!(peer = to, ?purpose, "reached the peer again");
                }
            }
            Err(error) => {
                // Once for each time that the peer goes away, not once for each attempt.
                if self.failed.is_none() {
                    tracing::warn!(peer = to, ?purpose, %error, "failed to reach the peer");
                }
                self.failed = Some((Instant::now(), error.to_string()));
            }
        }
    }
}

impl Pool {
    pub fn new(book: Arc<PeerBook>, transport: SharedTransport, metrics: PeerMetrics) -> Arc<Self> {
        Arc::new(Self {
            book,
            transport,
            metrics,
            transfers: Arc::default(),
            followed: Followed::default(),
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

    /// Dials a peer anew, whatever connections there are, to see whether its process lives. `within` is for the connection
    /// to each of its addresses; the handshake has a bound of its own.
    pub async fn probe(&self, to: u64, within: Duration) -> Probe {
        let addrs = self.book.peer_addrs(to);
        let mut probe = match addrs.is_empty() {
            true => Probe::Unclear,
            false => Probe::Refused,
        };
        for addr in addrs {
            match Connection::dial(addr, self, to, Purpose::Control, within).await {
                Ok(connection) => return Probe::Met(Box::new(connection)),
                Err(DialError::Connect { error, .. }) if error.kind() == ErrorKind::ConnectionRefused => {}
                Err(error) => {
                    tracing::debug!(peer = to, %error, "a probe said nothing");
                    probe = match (error, probe) {
                        (DialError::Timeout { .. }, _) | (_, Probe::Silent) => Probe::Silent,
                        _ => Probe::Unclear,
                    };
                }
            }
        }
        probe
    }

    /// The connection to a peer, dialled if there is none.
    pub async fn connection(
        self: &Arc<Self>,
        to: u64,
        purpose: Purpose,
        within: Duration,
    ) -> Result<Arc<Connection>, DialError> {
        let mut dialled = {
            let mut slots = self.slots();
            let slot = slots.entry((to, purpose)).or_default();
            if let Some(connection) = slot.connection.as_ref().filter(|connection| !connection.is_closed()) {
                return Ok(connection.clone());
            }
            slot.connection = None;
            match &slot.dialling {
                Some(dialled) => dialled.clone(),
                None => {
                    if let Some(error) = slot.backing_off() {
                        return Err(error);
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

    /// A connection for appends: the caller's own, because it reads and writes it himself. Waits for as long as dialling
    /// may take: to give it up sooner and to begin anew would never reach a peer that is busy.
    pub async fn dial_for_appends(&self, to: u64) -> Result<AppendLink, DialError> {
        let purpose = Purpose::Append;
        if let Some(error) = self.slots().entry((to, purpose)).or_default().backing_off() {
            return Err(error);
        }
        let dialled = self.reach(to, purpose).await;
        let mut slots = self.slots();
        let slot = slots.entry((to, purpose)).or_default();
        slot.dialled(to, purpose, &dialled);
        let (wire, _) = dialled?;
        let hang_up = CancellationToken::new();
        slot.hang_up = Some(hang_up.clone());
        Ok(AppendLink::new(wire, hang_up))
    }

    /// Dials once and leaves the result in the slot.
    async fn dial(&self, to: u64, purpose: Purpose) -> Dialled {
        let dialled = self.reach(to, purpose).await;
        let mut slots = self.slots();
        let slot = slots.entry((to, purpose)).or_default();
        slot.dialling = None;
        slot.dialled(to, purpose, &dialled);
        let (wire, greeted) = dialled.map_err(|error| error.to_string())?;
        let connection = Arc::new(Connection::start(wire, greeted));
        slot.connection = Some(connection.clone());
        Ok(connection)
    }

    /// Dials the peer's addresses until one answers.
    async fn reach(&self, to: u64, purpose: Purpose) -> Result<(Wire, Greeted), DialError> {
        let mut reached = Err(DialError::NoAddress(to));
        for addr in self.book.peer_addrs(to) {
            reached = connection::reach(addr, self, to, purpose, DIAL_TIMEOUT).await;
            if reached.is_ok() {
                break;
            }
        }
        if let Err(DialError::Handshake {
            error: HandshakeError::Refused { removed: true, .. },
            ..
        }) = &reached
            && let Some(hooks) = self.hooks.get()
        {
            (hooks.removed)(to);
        }
        reached
    }

    /// Ends all connections to a peer, to dial it anew.
    fn hang_up(&self, to: u64) {
        for (_, slot) in self.slots().iter_mut().filter(|((peer, _), _)| *peer == to) {
            if let Some(connection) = &slot.connection {
                connection.hang_up();
            }
            if let Some(hang_up) = slot.hang_up.take() {
                hang_up.cancel();
            }
        }
    }

    fn slots(&self) -> MutexGuard<'_, BTreeMap<(u64, Purpose), Slot>> {
        self.slots.lock().expect("no panic while the lock is held")
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
