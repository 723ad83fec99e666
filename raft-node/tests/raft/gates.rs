//! The way from each node to each other one, which a test may close: what is connected ends, and who dials is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use raft_node::peers::transport::{BoxLink, Transport};
use tokio::io::{copy_bidirectional, duplex};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

#[derive(Debug, Clone, Default)]
pub(crate) struct Gates(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Whose address it is.
    nodes: BTreeMap<String, u64>,
    closed: BTreeSet<(u64, u64)>,
    /// Of the connections from one node to another.
    ends: BTreeMap<(u64, u64), CancellationToken>,
}

impl Gates {
    /// The connections that this node dials.
    pub(crate) fn of(&self, from: u64, addr: &str) -> Gate {
        self.0.lock().unwrap().nodes.insert(addr.to_owned(), from);
        Gate {
            gates: self.clone(),
            from,
        }
    }

    /// Between two nodes, in both directions.
    pub(crate) fn close(&self, one: u64, other: u64) {
        let mut state = self.0.lock().unwrap();
        for way in [(one, other), (other, one)] {
            state.closed.insert(way);
        }
        drop(state);
        self.reset(one, other);
    }

    pub(crate) fn open(&self, one: u64, other: u64) {
        let mut state = self.0.lock().unwrap();
        for way in [(one, other), (other, one)] {
            state.closed.remove(&way);
        }
    }

    /// Ends the connections between them; new ones are let through.
    pub(crate) fn reset(&self, one: u64, other: u64) {
        let mut state = self.0.lock().unwrap();
        for way in [(one, other), (other, one)] {
            if let Some(end) = state.ends.remove(&way) {
                end.cancel();
            }
        }
    }

    /// None: it is closed.
    fn pass(&self, from: u64, addr: &str) -> Option<CancellationToken> {
        let mut state = self.0.lock().unwrap();
        let way = (from, *state.nodes.get(addr)?);
        if state.closed.contains(&way) {
            return None;
        }
        Some(state.ends.entry(way).or_default().clone())
    }
}

#[derive(Debug)]
pub(crate) struct Gate {
    gates: Gates,
    from: u64,
}

impl Transport for Gate {
    fn connect<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<BoxLink>> {
        Box::pin(async move {
            let ended = self.gates.pass(self.from, addr);
            let ended = ended.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionRefused))?;
            let mut outer = TcpStream::connect(addr).await?;
            outer.set_nodelay(true)?;
            let (near, mut far) = duplex(1 << 16);
            tokio::spawn(async move {
                tokio::select! {
                    () = ended.cancelled() => {}
                    _ = copy_bidirectional(&mut far, &mut outer) => {}
                }
            });
            Ok(Box::new(near) as BoxLink)
        })
    }
}
