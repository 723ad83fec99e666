//! Bytes on a socket, for requests that no HTTP library would send.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What came back on the connection.
#[derive(Debug, Clone)]
pub struct RawAnswer {
    pub bytes: Vec<u8>,
    /// The node closed the connection (rather than the test giving up).
    pub closed: bool,
    pub took: Duration,
}

impl RawAnswer {
    /// The status of the first answer, if there is one.
    pub fn status(&self) -> Option<u16> {
        let line = self.bytes.split(|byte| *byte == b'\r').next()?;
        let text = std::str::from_utf8(line).ok()?;
        text.strip_prefix("HTTP/1.1 ")?.split(' ').next()?.parse().ok()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// Writes the bytes and reads until the node closes the connection, at most `within`.
///
/// A node may answer and close before it has read everything; a write that fails for that reason
/// is not an error.
pub async fn exchange(node: SocketAddr, request: &[u8], within: Duration) -> Result<RawAnswer> {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(node)
        .await
        .with_context(|| format!("failed to connect to {node}"))?;
    let mut bytes = Vec::new();
    let (mut from_node, mut to_node) = stream.split();
    let both = async {
        let write = async {
            let written = to_node.write_all(request).await;
            // The other half goes on reading, whether or not all was taken.
            drop(written);
        };
        let read = async { while from_node.read_buf(&mut bytes).await.is_ok_and(|read| read > 0) {} };
        tokio::join!(write, read);
    };
    let closed = tokio::time::timeout(within, both).await.is_ok();
    Ok(RawAnswer {
        bytes,
        closed,
        took: begun.elapsed(),
    })
}
