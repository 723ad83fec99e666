//! The network between the nodes, as far as a test may break it: one small TCP proxy before each
//! node's peer address, which is where everybody finds the node, and which knows who calls.
//!
//! A *flow* is what travels from one node to another, on whichever connection: requests on a connection
//! that i opened to j and answers on one that j opened to i both belong to the flow from i to j. A cut
//! flow loses nothing and closes nothing: bytes wait, as TCP makes them wait behind a dropped packet, and
//! a new connection gets no answer. A reset closes what is open, at both ends.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::diallers::Diallers;
use crate::wait::eventually;

/// Bytes that a proxy holds in each direction of a connection while its flow is cut.
const BUFFER_BYTES: usize = 64 << 10;

type Flows = Arc<RwLock<BTreeMap<(u64, u64), Arc<Flow>>>>;

#[derive(Debug)]
pub struct Network {
    /// Held to look up or to put in, never across an await.
    flows: Flows,
    /// The proxies end with the network, and each ends its connections. Held to put in.
    proxies: Mutex<JoinSet<()>>,
    diallers: Diallers,
}

#[derive(Debug)]
struct Flow {
    open: watch::Sender<bool>,
    /// Counts the resets of the link.
    resets: watch::Sender<u64>,
    /// Bytes that may still pass; when they are used up the flow is cut.
    allowance: AtomicU64,
}

impl Flow {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            open: watch::Sender::new(true),
            resets: watch::Sender::new(0),
            allowance: AtomicU64::new(u64::MAX),
        })
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
}

impl Network {
    /// No node yet.
    pub(super) fn new(diallers: Diallers) -> Self {
        Self {
            flows: Arc::default(),
            proxies: Mutex::default(),
            diallers,
        }
    }

    /// Starts the proxy before a node: it listens at `entry` and connects to `exit`.
    pub(super) async fn add(&self, id: u64, entry: SocketAddr, exit: SocketAddr) -> Result<()> {
        let listener = TcpListener::bind(entry)
            .await
            .with_context(|| format!("failed to listen for the links to node {id}"))?;
        {
            let mut flows = self.flows.write().expect("no holder of this lock panics");
            let others: BTreeSet<u64> = flows.keys().map(|(from, _)| *from).collect();
            // To itself as well: that is how a node alone is known, and nobody uses it.
            for other in others.into_iter().chain([id]) {
                flows.insert((id, other), Flow::new());
                flows.insert((other, id), Flow::new());
            }
        }
        let links = Links {
            to: id,
            entry,
            exit,
            flows: self.flows.clone(),
            diallers: self.diallers.clone(),
        };
        let mut proxies = self.proxies.lock().expect("no holder of this lock panics");
        proxies.spawn(proxy(listener, links));
        Ok(())
    }

    /// Cuts each flow to the node after so many more bytes, give or take a buffer: in the middle of
    /// something.
    pub fn cut_after(&self, to: u64, bytes: u64) {
        for flow in self.flows_to(to) {
            flow.allowance.store(bytes, Ordering::Relaxed);
        }
    }

    /// Waits until a flow to the node is cut.
    pub async fn wait_cut(&self, to: u64, within: Duration) -> Result<()> {
        eventually("enough has passed", within, async || {
            match self.flows_to(to).iter().any(|flow| !*flow.open.borrow()) {
                true => Ok(()),
                false => Err("no flow is cut"),
            }
        })
        .await
    }

    fn flows_to(&self, id: u64) -> Vec<Arc<Flow>> {
        let flows = self.flows.read().expect("no holder of this lock panics");
        let to = flows.iter().filter(|((_, to), _)| *to == id);
        to.map(|(_, flow)| flow.clone()).collect()
    }

    /// Nothing from `from` reaches `to` any more; what `to` sends still arrives.
    pub fn cut_one_way(&self, from: u64, to: u64) {
        self.flow(from, to).open.send_replace(false);
    }

    /// Cuts both ways between two nodes.
    pub fn cut(&self, a: u64, b: u64) {
        self.cut_one_way(a, b);
        self.cut_one_way(b, a);
    }

    /// Cuts a node off from all its peers. Clients still reach it.
    pub fn isolate(&self, id: u64) {
        for ((from, to), flow) in self.flows.read().expect("no holder of this lock panics").iter() {
            if *from == id || *to == id {
                flow.open.send_replace(false);
            }
        }
    }

    /// Undoes every cut, also those to come.
    pub fn heal(&self) {
        for flow in self.flows.read().expect("no holder of this lock panics").values() {
            flow.allowance.store(u64::MAX, Ordering::Relaxed);
            flow.open.send_replace(true);
        }
    }

    /// Closes, with a reset at both ends, every connection that `from` has opened to `to`.
    pub fn reset(&self, from: u64, to: u64) {
        self.flow(from, to).resets.send_modify(|count| *count += 1);
    }

    fn flow(&self, from: u64, to: u64) -> Arc<Flow> {
        flow(&self.flows, from, to).expect("the test names two nodes of the cluster")
    }
}

fn flow(flows: &Flows, from: u64, to: u64) -> Option<Arc<Flow>> {
    let flows = flows.read().expect("no holder of this lock panics");
    flows.get(&(from, to)).cloned()
}

/// All links to one node.
#[derive(Clone)]
struct Links {
    to: u64,
    entry: SocketAddr,
    exit: SocketAddr,
    flows: Flows,
    diallers: Diallers,
}

impl Links {
    /// The flows of a connection, from the one who opened it and back. None: he has gone again.
    async fn of(&self, far: SocketAddr) -> Option<(Arc<Flow>, Arc<Flow>)> {
        let from = self.diallers.who(far, self.entry).await.ok()?;
        Some((flow(&self.flows, from, self.to)?, flow(&self.flows, self.to, from)?))
    }
}

async fn proxy(listener: TcpListener, links: Links) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((inbound, far)) => {
                    connections.spawn(carry(inbound, far, links.clone()));
                }
                // The peer hung up before it was accepted, or descriptors ran out for a moment.
                Err(_) => tokio::task::yield_now().await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Carries one connection until either end closes it or the link is reset.
async fn carry(mut inbound: TcpStream, far: SocketAddr, links: Links) {
    let Some((forth, back)) = links.of(far).await else {
        let _ = inbound.set_zero_linger();
        return;
    };
    let exit = links.exit;
    let mut resets = forth.resets.subscribe();
    let connected = tokio::select! {
        outbound = connect(exit, &forth, &back) => outbound,
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
                pump(from_inbound, to_outbound, &forth),
                pump(from_outbound, to_inbound, &back)
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
    use std::time::Duration;

    use super::*;

    /// Node 1's connection to node 2 through the network, both ends. Both nodes are this process, and
    /// it is entered as node 1.
    async fn link(network_of: &TcpListener) -> (Network, TcpStream, TcpStream) {
        let exit = network_of.local_addr().expect("it listens");
        let [one, two] = [0, 1].map(|_| {
            let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
            free.expect("a port is free")
        });
        let diallers = Diallers::default();
        diallers.enter(1, std::process::id());
        let network = Network::new(diallers);
        network.add(1, one, one).await.expect("the port was free a moment ago");
        network.add(2, two, exit).await.expect("the port was free a moment ago");
        let near = TcpStream::connect(two).await.expect("the proxy listens");
        let (far, _) = network_of.accept().await.expect("the proxy connects");
        (network, near, far)
    }

    async fn arrives(stream: &mut TcpStream) -> bool {
        let mut byte = [0];
        let read = tokio::time::timeout(Duration::from_millis(200), stream.read_exact(&mut byte)).await;
        read.is_ok_and(|read| read.is_ok())
    }

    #[tokio::test]
    async fn a_one_way_cut_holds_one_direction_back_until_it_heals() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let (network, mut near, mut far) = link(&listener).await;
        network.cut_one_way(1, 2);
        near.write_all(b"a")
            .await
            .expect("the proxy reads or the kernel buffers");
        far.write_all(b"b").await.expect("the proxy reads");
        assert!(!arrives(&mut far).await, "1→2 is cut");
        assert!(arrives(&mut near).await, "2→1 is open");
        network.heal();
        assert!(arrives(&mut far).await, "nothing was lost");
    }

    #[tokio::test]
    async fn a_new_connection_over_a_cut_link_gets_no_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let (network, near, _far) = link(&listener).await;
        network.isolate(2);
        let mut second = TcpStream::connect(near.peer_addr().expect("connected"))
            .await
            .expect("the proxy listens");
        let accepted = tokio::time::timeout(Duration::from_millis(200), listener.accept()).await;
        assert!(accepted.is_err(), "the connection must not reach the other side");
        assert!(!arrives(&mut second).await);
        network.heal();
        listener
            .accept()
            .await
            .expect("it arrives when the link is whole again");
    }

    #[tokio::test]
    async fn a_flow_with_an_allowance_is_cut_when_it_is_used_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let (network, mut near, mut far) = link(&listener).await;
        network.cut_after(2, 2);
        near.write_all(b"a").await.expect("the proxy reads");
        assert!(arrives(&mut far).await);
        let early = network.wait_cut(2, Duration::from_millis(50)).await;
        assert!(early.is_err(), "one byte is left");
        near.write_all(b"b").await.expect("the proxy reads");
        assert!(arrives(&mut far).await);
        network.wait_cut(2, Duration::from_secs(10)).await.expect("used up");
        near.write_all(b"c").await.expect("the kernel buffers");
        assert!(!arrives(&mut far).await);
        network.heal();
        assert!(arrives(&mut far).await, "nothing was lost");
    }

    #[tokio::test]
    async fn a_reset_ends_the_connection_at_both_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let (network, mut near, mut far) = link(&listener).await;
        network.reset(1, 2);
        let mut byte = [0];
        assert!(near.read_exact(&mut byte).await.is_err());
        assert!(far.read_exact(&mut byte).await.is_err());
    }
}
