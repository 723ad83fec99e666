//! Clients that mean harm, or might as well: they open connections and say nothing, say it byte by
//! byte, or say too much. Whatever they do, they must not be able to do it for long, and those who
//! mean well must not notice.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::{join_all, try_join_all};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How many of each kind there are.
#[derive(Debug, Clone, Copy)]
pub struct Crowd {
    /// Connections that never say a word.
    pub silent: usize,
    /// Requests whose heads come byte by byte.
    pub heads: usize,
    /// Requests whose bodies do.
    pub bodies: usize,
    /// Peers that flood over HTTP/2, each on one connection after the other, for as long as the rest lasts.
    pub floods: usize,
}

/// What became of them: the node ended each of these connections.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    pub silent: usize,
    pub heads: usize,
    /// Those that were told so, by a 408, before.
    pub bodies: usize,
    pub floods: usize,
}

/// How fast drips come.
const DRIP: Duration = Duration::from_millis(200);
/// Connections at once that are being made.
const OPENED_AT_ONCE: usize = 64;

/// Sends the whole crowd against the node, and returns when it has cut the last of them. Fails when
/// one is still there after `within`.
pub async fn attack(node: SocketAddr, crowd: Crowd, within: Duration) -> Result<Cut> {
    raise_open_files(crowd.silent + crowd.heads + crowd.bodies + crowd.floods)?;
    let cut_floods = AtomicUsize::new(0);
    let floods = async {
        join_all((0..crowd.floods).map(|_| flood(node, &cut_floods))).await;
        // Nobody floods.
        std::future::pending::<()>().await;
    };
    let head = b"GET /v1/users HTTP/1.1\r\nHost: x\r\nX-Drip: ".to_vec();
    let body = b"POST /v1/users HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
                 Content-Length: 4000000\r\n\r\n{"
        .to_vec();
    let rest = async {
        let silent = async {
            let silent = open(node, crowd.silent).await?;
            join_all(silent.into_iter().map(end)).await;
            anyhow::Ok(())
        };
        let heads = try_join_all((0..crowd.heads).map(|_| drip(node, &head)));
        let bodies = try_join_all((0..crowd.bodies).map(|_| drip(node, &body)));
        tokio::try_join!(silent, heads, bodies)
    };
    let ((), heads, bodies) = tokio::select! {
        ended = tokio::time::timeout(within, rest) => ended.context("the node has not cut them all")??,
        () = floods => unreachable!("a flood goes on for ever"),
    };
    Ok(Cut {
        silent: crowd.silent,
        heads: heads.len(),
        bodies: bodies
            .iter()
            .filter(|answer| answer.starts_with(b"HTTP/1.1 408 "))
            .count(),
        floods: cut_floods.load(Ordering::Relaxed),
    })
}

/// The soft limit of open files is often too low for so many sockets.
fn raise_open_files(sockets: usize) -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let needed = sockets as u64 + 512;
    ensure!(
        hard >= needed,
        "{needed} open files are needed, and the hard limit is {hard}"
    );
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

async fn open(node: SocketAddr, count: usize) -> Result<Vec<TcpStream>> {
    let mut sockets = Vec::with_capacity(count);
    while sockets.len() < count {
        let some = (count - sockets.len()).min(OPENED_AT_ONCE);
        sockets.extend(try_join_all((0..some).map(|_| TcpStream::connect(node))).await?);
    }
    Ok(sockets)
}

/// Reads until the node ends the connection.
async fn end(mut socket: TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    while socket.read_buf(&mut answer).await.is_ok_and(|read| read > 0) {}
    answer
}

/// Sends how a request begins and then one byte after the other, until the node ends the connection.
async fn drip(node: SocketAddr, begun: &[u8]) -> Result<Vec<u8>> {
    let mut socket = TcpStream::connect(node).await?;
    socket.write_all(begun).await?;
    let (mut from_node, mut to_node) = socket.split();
    let mut answer = Vec::new();
    let read = async { while from_node.read_buf(&mut answer).await.is_ok_and(|read| read > 0) {} };
    let write = async {
        let mut drips = tokio::time::interval(DRIP);
        loop {
            drips.tick().await;
            // What the node no longer takes is seen by the reading half.
            let _ = to_node.write_all(b" ").await;
        }
    };
    tokio::select! { () = read => {}, () = write => unreachable!("it drips for ever") }
    Ok(answer)
}

/// One connection after the other that asks, takes back, and pings, as fast as the node reads. Counts
/// those that the node ended.
async fn flood(node: SocketAddr, cut: &AtomicUsize) {
    let mut begun = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    begun.extend(frame(SETTINGS, 0, 0, &[]));
    loop {
        // Where the node has too many connections, or just none to give, it is tried again.
        let Ok(mut socket) = TcpStream::connect(node).await else {
            tokio::time::sleep(DRIP).await;
            continue;
        };
        let (mut from_node, mut to_node) = socket.split();
        let read = async {
            let mut piece = vec![0; 16 << 10];
            while from_node.read(&mut piece).await.is_ok_and(|read| read > 0) {}
        };
        let write = async {
            let mut next = begun.clone();
            for stream in (1..u32::MAX >> 1).step_by(2) {
                next.extend(frame(HEADERS, END_HEADERS_AND_STREAM, stream, GET_USERS));
                next.extend(frame(RST_STREAM, 0, stream, &CANCEL));
                next.extend(frame(PING, 0, 0, &[0; 8]));
                if next.len() > 16 << 10 {
                    if to_node.write_all(&next).await.is_err() {
                        return;
                    }
                    next.clear();
                }
            }
        };
        // The end is read after what was refused to be written.
        tokio::join!(write, read);
        cut.fetch_add(1, Ordering::Relaxed);
    }
}

// RFC 9113, section 6.
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const END_HEADERS_AND_STREAM: u8 = 4 | 1;
const CANCEL: [u8; 4] = [0, 0, 0, 8];
/// HPACK: GET, http, and the path as a literal of 9 bytes.
const GET_USERS: &[u8] = b"\x82\x86\x04\x09/v1/users";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame is short");
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}
