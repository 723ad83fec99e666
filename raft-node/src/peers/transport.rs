//! How connections between nodes come about: TCP in a process, simulated links in the simulation.
//! What travels on them is the same.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

/// The two ends of a connection read and write bytes in order.
pub trait Link: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Link for T {}

pub type BoxLink = Box<dyn Link>;

pub trait Transport: fmt::Debug + Send + Sync {
    fn connect<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<BoxLink>>;
}

pub type SharedTransport = Arc<dyn Transport>;

pub trait Listener: Send {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<BoxLink>>;
}

pub type BoxListener = Box<dyn Listener>;

/// TCP over the machine's own network.
#[derive(Debug, Clone, Copy)]
pub struct Tcp;

impl Transport for Tcp {
    fn connect<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<BoxLink>> {
        Box::pin(async move {
            let stream = TcpStream::connect(addr).await?;
            tune(&stream)?;
            Ok(Box::new(stream) as BoxLink)
        })
    }
}

impl Listener for TcpListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<BoxLink>> {
        Box::pin(async move {
            let (stream, _) = TcpListener::accept(self).await?;
            if let Err(error) = tune(&stream) {
                tracing::debug!(%error, "failed to set up a peer's socket");
            }
            Ok(Box::new(stream) as BoxLink)
        })
    }
}

/// Small frames must not wait for more to come, and a peer whose machine vanished must be noticed.
fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(10))
        .with_interval(Duration::from_secs(2));
    let socket = socket2::SockRef::from(stream);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(Duration::from_secs(10)))?;
    Ok(())
}
