//! Connections between simulated hosts, for the node's own code for peers.

use std::io;

use futures::future::BoxFuture;
use raft_node::peers::transport::{BoxLink, Listener, Transport};
use turmoil::net::{TcpListener, TcpStream};

#[derive(Debug, Clone, Copy)]
pub(crate) struct SimulatedTcp;

impl Transport for SimulatedTcp {
    fn connect<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<BoxLink>> {
        Box::pin(async move { Ok(Box::new(TcpStream::connect(addr).await?) as BoxLink) })
    }
}

pub(crate) struct SimulatedListener(TcpListener);

impl SimulatedListener {
    pub(crate) async fn bind(port: u16) -> io::Result<Self> {
        Ok(Self(TcpListener::bind(("0.0.0.0", port)).await?))
    }
}

impl Listener for SimulatedListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<BoxLink>> {
        Box::pin(async move {
            let (stream, _) = self.0.accept().await?;
            Ok(Box::new(stream) as BoxLink)
        })
    }
}
