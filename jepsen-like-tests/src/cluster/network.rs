//! The network between the nodes, as far as a test may break it: one small TCP proxy before each
//! node's peer address, which is where everybody finds the node, and which knows who calls.
//!
//! A *flow* is what travels from one node to another, on whichever connection: requests on a connection
//! that i opened to j and answers on one that j opened to i both belong to the flow from i to j. A cut
//! flow loses nothing and closes nothing: bytes wait, as TCP makes them wait behind a dropped packet, and
//! a new connection gets no answer. A reset closes what is open, at both ends.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::addresses::Block;
use super::diallers::Diallers;
use super::flow::{Flow, Weather, carry};
use super::namespaces::{self, Namespaces};
use crate::wait::eventually;

type Flows = Arc<RwLock<BTreeMap<(u64, u64), Arc<Flow>>>>;

/// Who is at which place now.
type Occupants = Arc<RwLock<BTreeMap<u64, u64>>>;

#[derive(Debug)]
pub struct Network {
    /// Held to look up or to put in, never across an await.
    flows: Flows,
    /// The nodes by place. Held to look up or to put in.
    occupants: Occupants,
    /// The proxies on loopback, by the place before which they stand. Held to put in.
    proxies: Mutex<BTreeMap<u64, JoinSet<()>>>,
    /// The threads of the proxies in namespaces, by the two places of the link. Held to put in.
    threads: Mutex<BTreeMap<(u64, u64), ProxyThread>>,
    diallers: Diallers,
}

impl Network {
    /// No node yet.
    pub(super) fn new(diallers: Diallers) -> Self {
        Self {
            flows: Arc::default(),
            occupants: Arc::default(),
            proxies: Mutex::default(),
            threads: Mutex::default(),
            diallers,
        }
    }

    /// Starts the proxy before a node at the place `slot`: it listens at `entry` and connects to `exit`. One
    /// that stood there for an earlier node ends.
    pub(super) async fn add(&self, id: u64, slot: u64, entry: SocketAddr, exit: SocketAddr) -> Result<()> {
        let before = self
            .proxies
            .lock()
            .expect("no holder of this lock panics")
            .remove(&slot);
        if let Some(mut before) = before {
            before.shutdown().await;
        }
        let listener = TcpListener::bind(entry)
            .await
            .with_context(|| format!("failed to listen for the links to node {id}"))?;
        self.enter(id, slot);
        let links = Links {
            caller: Caller::Traced(self.diallers.clone()),
            to: slot,
            entry,
            exit,
            flows: self.flows.clone(),
            occupants: self.occupants.clone(),
        };
        let mut proxies = self.proxies.lock().expect("no holder of this lock panics");
        proxies.entry(slot).or_default().spawn(proxy(listener, links));
        Ok(())
    }

    /// The same for a node in a namespace: on its machine there is a proxy for its links to each other place,
    /// and on each other machine one for the links to it.
    pub(super) fn add_isolated(&self, id: u64, slot: u64, namespaces: &Namespaces, block: &Block) -> Result<()> {
        let others: Vec<u64> = {
            let occupants = self.occupants.read().expect("no holder of this lock panics");
            occupants.keys().copied().filter(|other| *other != slot).collect()
        };
        self.enter(id, slot);
        let mut threads = self.threads.lock().expect("no holder of this lock panics");
        for (from, to) in others.into_iter().flat_map(|other| [(other, slot), (slot, other)]) {
            if threads.contains_key(&(from, to)) {
                continue;
            }
            let port = namespaces.divert(from, to, block.peer(to).ip())?;
            let links = Links {
                caller: Caller::At(from),
                to,
                entry: namespaces::proxy_address(port),
                exit: block.peer(to),
                flows: self.flows.clone(),
                occupants: self.occupants.clone(),
            };
            threads.insert((from, to), ProxyThread::start(from, links)?);
        }
        Ok(())
    }

    fn enter(&self, id: u64, slot: u64) {
        self.occupants
            .write()
            .expect("no holder of this lock panics")
            .insert(slot, id);
        let mut flows = self.flows.write().expect("no holder of this lock panics");
        let others: BTreeSet<u64> = flows.keys().map(|(from, _)| *from).collect();
        // To itself as well: that is how a node alone is known, and nobody uses it.
        for other in others.into_iter().chain([id]) {
            for key in [(id, other), (other, id)] {
                flows.insert(key, Flow::new());
            }
        }
    }

    /// Cuts each flow to the node after so many more bytes, give or take a buffer: in the middle of
    /// something.
    pub fn cut_after(&self, to: u64, bytes: u64) {
        for flow in self.flows_to(to) {
            flow.cut_after(bytes);
        }
    }

    /// Waits until a flow to the node is cut.
    pub async fn wait_cut(&self, to: u64, within: Duration) -> Result<()> {
        eventually("enough has passed", within, async || {
            match self.flows_to(to).iter().any(|flow| flow.is_cut()) {
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
        self.flow(from, to).cut();
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
                flow.cut();
            }
        }
    }

    /// Undoes every cut, also those to come.
    pub fn heal(&self) {
        for flow in self.flows.read().expect("no holder of this lock panics").values() {
            flow.open();
        }
    }

    /// Closes, with a reset at both ends, every connection that `from` has opened to `to`.
    pub fn reset(&self, from: u64, to: u64) {
        self.flow(from, to).reset();
    }

    /// Adds one cut of the flow, which ends with one [`Network::release`]: for cuts that overlap.
    pub(super) fn hold(&self, from: u64, to: u64) {
        self.flow(from, to).hold();
    }

    pub(super) fn release(&self, from: u64, to: u64) {
        self.flow(from, to).release();
    }

    /// From now on what travels from one node to the other meets this weather.
    pub fn set_weather(&self, from: u64, to: u64, weather: Weather) {
        self.flow(from, to).set_weather(weather);
    }

    /// Every flow has good weather.
    pub fn clear_up(&self) {
        for flow in self.flows.read().expect("no holder of this lock panics").values() {
            flow.set_weather(Weather::default());
        }
    }

    fn flow(&self, from: u64, to: u64) -> Arc<Flow> {
        flow(&self.flows, from, to).expect("the test names two nodes of the cluster")
    }
}

fn flow(flows: &Flows, from: u64, to: u64) -> Option<Arc<Flow>> {
    let flows = flows.read().expect("no holder of this lock panics");
    flows.get(&(from, to)).cloned()
}

/// Whose connections a proxy takes.
#[derive(Clone)]
enum Caller {
    /// Whoever the kernel says has opened it.
    Traced(Diallers),
    /// The node at this place: the proxy is on its machine.
    At(u64),
}

/// All links to the node at one place.
#[derive(Clone)]
struct Links {
    caller: Caller,
    to: u64,
    entry: SocketAddr,
    exit: SocketAddr,
    flows: Flows,
    occupants: Occupants,
}

impl Links {
    /// The flows of a connection, from the one who opened it and back. None: he has gone again.
    async fn of(&self, far: SocketAddr) -> Option<(Arc<Flow>, Arc<Flow>)> {
        let from = match &self.caller {
            Caller::Traced(diallers) => diallers.who(far, self.entry).await.ok()?,
            Caller::At(slot) => self.occupant(*slot)?,
        };
        let to = self.occupant(self.to)?;
        Some((flow(&self.flows, from, to)?, flow(&self.flows, to, from)?))
    }

    fn occupant(&self, slot: u64) -> Option<u64> {
        let occupants = self.occupants.read().expect("no holder of this lock panics");
        occupants.get(&slot).copied()
    }
}

/// A proxy in a network namespace: only a thread that has entered it makes connections from there.
#[derive(Debug)]
struct ProxyThread {
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl ProxyThread {
    /// Returns when it listens.
    fn start(slot: u64, links: Links) -> Result<Self> {
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (ready, listens) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::spawn(move || {
            let begun = (|| {
                Namespaces::move_thread(slot)?;
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                let listener = runtime.block_on(TcpListener::bind(links.entry))?;
                anyhow::Ok((runtime, listener))
            })();
            match begun {
                Ok((runtime, listener)) => {
                    // Whoever starts it waits for this.
                    let _ = ready.send(Ok(()));
                    runtime.block_on(async {
                        tokio::select! {
                            () = proxy(listener, links) => {}
                            _ = stopped => {}
                        }
                    });
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            }
        });
        listens.recv().context("the thread of a proxy has ended")??;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for ProxyThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It panicked, which was shown.
            let _ = thread.join();
        }
    }
}

async fn proxy(listener: TcpListener, links: Links) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((inbound, far)) => {
                    let links = links.clone();
                    connections.spawn(async move {
                        match links.of(far).await {
                            Some((forth, back)) => carry(inbound, links.exit, &forth, &back).await,
                            None => {
                                let _ = inbound.set_zero_linger();
                            }
                        }
                    });
                }
                // The peer hung up before it was accepted, or descriptors ran out for a moment.
                Err(_) => tokio::task::yield_now().await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

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
        network
            .add(1, 1, one, one)
            .await
            .expect("the port was free a moment ago");
        network
            .add(2, 2, two, exit)
            .await
            .expect("the port was free a moment ago");
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
