//! What travels from one node to another, and how a proxy carries it: at once, late, with bytes changed, or
//! not at all for a while.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use rand::RngExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// Bytes that a proxy holds in each direction of a connection while its flow is cut.
const BUFFER_BYTES: usize = 64 << 10;

/// What the bytes of a flow meet. As it begins: nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Weather {
    /// How late a piece arrives, at random. Those of one connection stay in order, as TCP has it; those of two
    /// connections overtake each other.
    pub delay: Range<Duration>,
    /// How likely it is that one bit of a piece, which has at most 64 KiB, arrives wrong.
    pub corrupt: f64,
}

#[derive(Debug)]
pub(super) struct Flow {
    open: watch::Sender<bool>,
    /// Counts the resets of the link.
    resets: watch::Sender<u64>,
    /// Bytes that may still pass; when they are used up the flow is cut.
    allowance: AtomicU64,
    /// Cuts that are counted: it is open again when none is left.
    holds: AtomicU64,
    /// Held to look or to put in.
    weather: RwLock<Weather>,
}

impl Flow {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            open: watch::Sender::new(true),
            resets: watch::Sender::new(0),
            allowance: AtomicU64::new(u64::MAX),
            holds: AtomicU64::new(0),
            weather: RwLock::default(),
        })
    }

    pub(super) fn cut(&self) {
        self.open.send_replace(false);
    }

    pub(super) fn is_cut(&self) -> bool {
        !*self.open.borrow()
    }

    /// Undoes every cut, also one to come.
    pub(super) fn open(&self) {
        self.allowance.store(u64::MAX, Ordering::Relaxed);
        self.holds.store(0, Ordering::Relaxed);
        self.open.send_replace(true);
    }

    pub(super) fn cut_after(&self, bytes: u64) {
        self.allowance.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn hold(&self) {
        // Inside the sender's lock, so that a release at the same time cannot come between.
        self.open.send_modify(|open| {
            self.holds.fetch_add(1, Ordering::Relaxed);
            *open = false;
        });
    }

    pub(super) fn release(&self) {
        self.open.send_modify(|open| {
            let before = self.holds.load(Ordering::Relaxed);
            self.holds.store(before.saturating_sub(1), Ordering::Relaxed);
            *open = before <= 1;
        });
    }

    pub(super) fn reset(&self) {
        self.resets.send_modify(|count| *count += 1);
    }

    pub(super) fn set_weather(&self, weather: Weather) {
        *self.weather.write().expect("no holder of this lock panics") = weather;
    }

    /// Counts what has passed. Without a limit the count never comes near its end.
    fn passed(&self, bytes: usize) {
        let bytes = bytes as u64;
        let before = self
            .allowance
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                Some(left.saturating_sub(bytes))
            });
        if before.is_ok_and(|left| left <= bytes) {
            self.open.send_replace(false);
        }
    }

    /// Does to a piece what the weather is, and answers with how long it is held back.
    fn weathered(&self, piece: &mut [u8]) -> Duration {
        let weather = self.weather.read().expect("no holder of this lock panics");
        if *weather == Weather::default() {
            return Duration::ZERO;
        }
        let mut dice = rand::rng();
        if !piece.is_empty() && dice.random_bool(weather.corrupt) {
            let at = dice.random_range(0..piece.len());
            piece[at] ^= 1 << dice.random_range(0..8);
        }
        match weather.delay.is_empty() {
            true => weather.delay.start,
            false => dice.random_range(weather.delay.clone()),
        }
    }
}

/// Carries one connection to `exit` until either end closes it or the link is reset.
pub(super) async fn carry(mut inbound: TcpStream, exit: SocketAddr, forth: &Flow, back: &Flow) {
    let mut resets = forth.resets.subscribe();
    let connected = tokio::select! {
        outbound = connect(exit, forth, back) => outbound,
        _ = resets.changed() => None,
    };
    let Some(mut outbound) = connected else {
        // A refused connection, as well as a proxy can say it.
        let _ = inbound.set_zero_linger();
        return;
    };
    // Without it, small frames wait for acknowledgements; the nodes have set it on their side.
    let _ = inbound.set_nodelay(true);
    let _ = outbound.set_nodelay(true);
    let broken = {
        let (from_inbound, to_inbound) = inbound.split();
        let (from_outbound, to_outbound) = outbound.split();
        let both = async {
            tokio::try_join!(
                pump(from_inbound, to_outbound, forth),
                pump(from_outbound, to_inbound, back)
            )
        };
        tokio::select! {
            ended = both => ended.is_err(),
            _ = resets.changed() => true,
        }
    };
    if broken {
        let _ = inbound.set_zero_linger();
        let _ = outbound.set_zero_linger();
    }
}

/// The handshake of a connection needs both directions.
async fn connect(exit: SocketAddr, forth: &Flow, back: &Flow) -> Option<TcpStream> {
    opened(&mut forth.open.subscribe()).await;
    opened(&mut back.open.subscribe()).await;
    TcpStream::connect(exit).await.ok()
}

async fn opened(open: &mut watch::Receiver<bool>) {
    // The sender lives as long as the proxy, so this cannot fail; an ended network stays cut.
    if open.wait_for(|open| *open).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn pump(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    flow: &Flow,
) -> std::io::Result<()> {
    let mut open = flow.open.subscribe();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        opened(&mut open).await;
        let read = from.read(&mut buffer).await?;
        let delay = flow.weathered(&mut buffer[..read]);
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        // It may have been cut while the read waited.
        opened(&mut open).await;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
        flow.passed(read);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::net::TcpListener;

    use super::*;

    /// Both ends of a connection that is carried with this flow forth.
    async fn carried(forth: Arc<Flow>) -> (TcpStream, TcpStream) {
        let [near, far] = [
            TcpListener::bind("127.0.0.1:0").await.expect("a port is free"),
            TcpListener::bind("127.0.0.1:0").await.expect("a port is free"),
        ];
        let [entry, exit] = [&near, &far].map(|listener| listener.local_addr().expect("it listens"));
        let dialler = TcpStream::connect(entry).await.expect("it listens");
        let (inbound, _) = near.accept().await.expect("somebody connects");
        tokio::spawn(async move { carry(inbound, exit, &forth, &Flow::new()).await });
        let (accepted, _) = far.accept().await.expect("the proxy connects");
        (dialler, accepted)
    }

    #[tokio::test]
    async fn a_delay_holds_bytes_back_and_corruption_changes_one_bit() {
        let forth = Flow::new();
        let (mut near, mut far) = carried(forth.clone()).await;
        let delay = Duration::from_millis(80);
        forth.set_weather(Weather {
            delay: delay..delay,
            corrupt: 1.0,
        });
        let sent = Instant::now();
        near.write_all(&[0; 8]).await.expect("the proxy reads");
        let mut bytes = [0; 8];
        far.read_exact(&mut bytes).await.expect("they arrive");
        assert!(sent.elapsed() >= delay);
        assert_eq!(bytes.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1, "{bytes:?}");
        forth.set_weather(Weather::default());
        near.write_all(&[0; 8]).await.expect("the proxy reads");
        far.read_exact(&mut bytes).await.expect("they arrive");
        assert_eq!(bytes, [0; 8]);
    }

    #[tokio::test]
    async fn of_two_cuts_that_overlap_the_last_one_opens_the_flow() {
        let forth = Flow::new();
        forth.hold();
        forth.hold();
        forth.release();
        assert!(forth.is_cut());
        forth.release();
        assert!(!forth.is_cut());
        forth.release();
        assert!(!forth.is_cut());
    }
}
