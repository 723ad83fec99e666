//! A stream's reader that costs so little that two thousand of them fit beside the nodes: a bare socket, one task,
//! and of each frame only what is checked.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

/// What all readers of a run saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// From the moment at which a message was sent until a reader had it.
    pub(crate) times: Vec<Duration>,
    /// What was not the next message, and why streams ended.
    pub(crate) wrong: Vec<String>,
}

/// One reader's place in its room.
#[derive(Debug, Default)]
pub(crate) struct Place {
    /// The last message that came; 0: none yet.
    pub(crate) seq: AtomicU64,
}

/// A message's text begins with the time at which it was sent: nanoseconds of this clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn text(self, bytes: usize) -> String {
        format!("{:0>bytes$}", format!(" {}", self.0.elapsed().as_nanos()))
    }

    fn since(self, text: &str) -> Result<Duration> {
        let (_, sent) = text.rsplit_once(' ').context("a text without a time")?;
        Ok(self.0.elapsed().saturating_sub(Duration::from_nanos(sent.parse()?)))
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct Message<'a> {
    pub(crate) seq: u64,
    #[serde(borrow)]
    text: &'a str,
}

/// One frame of a stream.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Frame {
    pub(crate) event: String,
    pub(crate) id: String,
    pub(crate) data: String,
}

/// An open stream.
#[derive(Debug)]
pub(crate) struct Reader {
    socket: TcpStream,
    /// As it came, not decoded yet.
    raw: Vec<u8>,
    /// Of the frame that is on its way.
    text: Vec<u8>,
    /// Bytes that are left of the chunk.
    chunk: usize,
    /// The last chunk has come.
    has_ended: bool,
}

impl Reader {
    /// Opens the stream of the room; its first frame is the bookmark of where it stands. `receive_bytes`: what the
    /// kernel may hold for a reader who does not read.
    pub(crate) async fn open(
        node: SocketAddr,
        room: &str,
        user: &str,
        last_id: Option<&str>,
        receive_bytes: Option<u32>,
    ) -> Result<(Self, Frame)> {
        let socket = TcpSocket::new_v4()?;
        if let Some(bytes) = receive_bytes {
            socket.set_recv_buffer_size(bytes)?;
        }
        let mut socket = socket.connect(node).await?;
        let last_id = last_id.map_or(String::new(), |id| format!("Last-Event-ID: {id}\r\n"));
        let head =
            format!("GET /v1/rooms/{room}/stream HTTP/1.1\r\nHost: {node}\r\nX-Quorate-User: {user}\r\n{last_id}\r\n");
        socket.write_all(head.as_bytes()).await?;
        let mut reader = Self {
            socket,
            raw: Vec::new(),
            text: Vec::new(),
            chunk: 0,
            has_ended: false,
        };
        let head = reader.head().await?;
        ensure!(head.starts_with("HTTP/1.1 200 "), "the stream was refused: {head}");
        let first = reader.next().await?.context("the stream ended at once")?;
        ensure!(first.event == "bookmark", "the stream begins with {first:?}");
        Ok((reader, first))
    }

    async fn head(&mut self) -> Result<String> {
        loop {
            if let Some(end) = find(&self.raw, b"\r\n\r\n") {
                return Ok(String::from_utf8(self.raw.drain(..end + 4).collect())?);
            }
            ensure!(self.receive().await?, "the node ended the connection before its head");
        }
    }

    /// False at the end.
    async fn receive(&mut self) -> Result<bool> {
        loop {
            self.socket.readable().await?;
            // Not kept: most readers wait.
            let mut buffer = [0; 16 << 10];
            match self.socket.try_read(&mut buffer) {
                Ok(bytes) => {
                    self.raw.extend_from_slice(&buffer[..bytes]);
                    return Ok(bytes > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Moves what has come of the chunks' contents to the text.
    fn decode(&mut self) -> Result<()> {
        let mut at = 0;
        while !self.has_ended {
            let rest = &self.raw[at..];
            if self.chunk > 0 {
                let here = rest.len().min(self.chunk);
                self.text.extend_from_slice(&rest[..here]);
                (at, self.chunk) = (at + here, self.chunk - here);
                if self.chunk > 0 {
                    break;
                }
                continue;
            }
            // What ends the chunk before stands before the size of the next one.
            let line = rest.strip_prefix(b"\r\n").unwrap_or(rest);
            let Some(end) = find(line, b"\r\n") else { break };
            let size = std::str::from_utf8(&line[..end])?;
            self.chunk = usize::from_str_radix(size, 16).with_context(|| format!("a chunk of size {size:?}"))?;
            at += rest.len() - line.len() + end + 2;
            self.has_ended = self.chunk == 0;
        }
        self.raw.drain(..at);
        if self.raw.is_empty() {
            self.raw = Vec::new();
        }
        Ok(())
    }

    /// None at the end of the stream.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>> {
        loop {
            if let Some(end) = find(&self.text, b"\n\n") {
                let frame = parse(std::str::from_utf8(&self.text[..end])?);
                self.text.drain(..end + 2);
                if self.text.is_empty() {
                    self.text = Vec::new();
                }
                return Ok(Some(frame));
            }
            self.decode()?;
            if find(&self.text, b"\n\n").is_some() {
                continue;
            }
            if self.has_ended {
                return Ok(None);
            }
            ensure!(self.receive().await?, "the connection ended within the stream");
        }
    }

    /// Reads for as long as the stream goes on, and notes what comes.
    pub(crate) async fn follow(mut self, place: Arc<Place>, seen: Arc<Mutex<Seen>>, clock: Clock) {
        let why = loop {
            match self.next().await {
                Ok(Some(frame)) => {
                    if let Err(error) = take(&frame, &place, &seen, clock) {
                        break format!("{error:#}");
                    }
                }
                Ok(None) => break "the node ended the stream".to_owned(),
                Err(error) => break format!("{error:#}"),
            }
        };
        seen.lock().expect("no holder panics").wrong.push(why);
    }
}

fn take(frame: &Frame, place: &Place, seen: &Mutex<Seen>, clock: Clock) -> Result<()> {
    match frame.event.as_str() {
        "bookmark" => return Ok(()),
        "message" => {}
        other => bail!("an event {other}: {frame:?}"),
    }
    let message = message(frame)?;
    let before = place.seq.swap(message.seq, Ordering::Relaxed);
    ensure!(
        message.seq == before + 1,
        "message {} came behind {before}",
        message.seq
    );
    let took = clock.since(message.text)?;
    seen.lock().expect("no holder panics").times.push(took);
    Ok(())
}

pub(crate) fn message(frame: &Frame) -> Result<Message<'_>> {
    serde_json::from_str(&frame.data).with_context(|| format!("{frame:?}"))
}

fn parse(text: &str) -> Frame {
    let mut frame = Frame::default();
    for line in text.lines() {
        match line.split_once(": ") {
            Some(("event", value)) => frame.event = value.to_owned(),
            Some(("id", value)) => frame.id = value.to_owned(),
            Some(("data", value)) => frame.data = value.to_owned(),
            _ => {}
        }
    }
    frame
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
