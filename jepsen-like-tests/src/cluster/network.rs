//! The network between the nodes, as far as a test may break it: one small TCP proxy for each
//! directed link. Node i reaches node j only through the proxy i→j.
//!
//! A *flow* is what travels from one node to another, on whichever connection: requests on i→j and
//! answers on j→i both belong to the flow from i to j. A cut flow loses nothing and closes nothing:
//! bytes wait, as TCP makes them wait behind a dropped packet, and a new connection gets no answer.
//! A reset closes what is open, at both ends.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Bytes that a proxy holds in each direction of a connection while its flow is cut.
const BUFFER_BYTES: usize = 64 << 10;

#[derive(Debug)]
pub struct Network {
    flows: BTreeMap<(u64, u64), Arc<Flow>>,
    /// The proxies end with the network, and each ends its connections.
    _proxies: JoinSet<()>,
}

#[derive(Debug)]
struct Flow {
    open: watch::Sender<bool>,
    /// Counts the resets of the link.
    resets: watch::Sender<u64>,
}

impl Network {
    /// Starts a proxy for every directed link between `ids`: it listens where `entry` says and
    /// connects to where `exit` says.
    pub async fn start(
        ids: &[u64],
        entry: impl Fn(u64, u64) -> SocketAddr,
        exit: impl Fn(u64) -> SocketAddr,
    ) -> Result<Self> {
        let pairs = || {
            ids.iter()
                .flat_map(|from| ids.iter().map(move |to| (*from, *to)))
                .filter(|(from, to)| from != to)
        };
        let flow = || {
            Arc::new(Flow {
                open: watch::Sender::new(true),
                resets: watch::Sender::new(0),
            })
        };
        let flows: BTreeMap<_, _> = pairs().map(|pair| (pair, flow())).collect();
        let mut proxies = JoinSet::new();
        for (from, to) in pairs() {
            let listener = TcpListener::bind(entry(from, to))
                .await
                .with_context(|| format!("failed to listen for the link {from}→{to}"))?;
            let (forth, back) = (flows[&(from, to)].clone(), flows[&(to, from)].clone());
            proxies.spawn(proxy(listener, exit(to), forth, back));
        }
        Ok(Self {
            flows,
            _proxies: proxies,
        })
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
        for ((from, to), flow) in &self.flows {
            if *from == id || *to == id {
                flow.open.send_replace(false);
            }
        }
    }

    /// Undoes every cut.
    pub fn heal(&self) {
        for flow in self.flows.values() {
            flow.open.send_replace(true);
        }
    }

    /// Closes, with a reset at both ends, every connection that `from` has opened to `to`.
    pub fn reset(&self, from: u64, to: u64) {
        self.flow(from, to).resets.send_modify(|count| *count += 1);
    }

    fn flow(&self, from: u64, to: u64) -> &Flow {
        self.flows
            .get(&(from, to))
            .expect("the test names two different nodes of the cluster")
    }
}

async fn proxy(listener: TcpListener, exit: SocketAddr, forth: Arc<Flow>, back: Arc<Flow>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((inbound, _)) => {
                    connections.spawn(carry(inbound, exit, forth.clone(), back.clone()));
                }
                // The peer hung up before it was accepted, or descriptors ran out for a moment.
                Err(_) => tokio::task::yield_now().await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Carries one connection until either end closes it or the link is reset.
async fn carry(mut inbound: TcpStream, exit: SocketAddr, forth: Arc<Flow>, back: Arc<Flow>) {
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
                pump(from_inbound, to_outbound, forth.open.subscribe()),
                pump(from_outbound, to_inbound, back.open.subscribe())
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
    mut open: watch::Receiver<bool>,
) -> std::io::Result<()> {
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
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Node 1's connection to node 2 through the network, both ends.
    async fn link(network_of: &TcpListener) -> (Network, TcpStream, TcpStream) {
        let exit = network_of.local_addr().expect("it listens");
        // Free ports: one for each direction of the only pair.
        let entries: Vec<SocketAddr> = [0, 1]
            .map(|_| {
                std::net::TcpListener::bind("127.0.0.1:0")
                    .and_then(|l| l.local_addr())
                    .expect("a port is free")
            })
            .to_vec();
        let network = Network::start(&[1, 2], |from, _| entries[from as usize - 1], |_| exit)
            .await
            .expect("it starts");
        let near = TcpStream::connect(entries[0]).await.expect("the proxy listens");
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
    async fn a_reset_ends_the_connection_at_both_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let (network, mut near, mut far) = link(&listener).await;
        network.reset(1, 2);
        let mut byte = [0];
        assert!(near.read_exact(&mut byte).await.is_err());
        assert!(far.read_exact(&mut byte).await.is_err());
    }
}
