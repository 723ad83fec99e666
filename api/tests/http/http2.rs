//! HTTP/2 as a hostile peer speaks it, frame by frame. What HTTP/1 has in time and room, it has too.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::caller::in_time;
use crate::sockets::{SHORT, Served};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// RFC 9113, section 7.
const ENHANCE_YOUR_CALM: u32 = 11;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The head of a request, from HPACK's static table and literals.
fn head(post: bool, path: &str) -> Vec<u8> {
    let mut block = vec![
        if post { 0x83 } else { 0x82 },
        0x86,
        0x04,
        u8::try_from(path.len()).unwrap(),
    ];
    block.extend(path.as_bytes());
    if post {
        block.extend([0x0f, 0x10, 16]);
        block.extend(b"application/json");
    }
    block
}

fn get(stream: u32) -> Vec<u8> {
    frame(
        HEADERS,
        END_HEADERS | END_STREAM,
        stream,
        &head(false, "/v1/rooms/hall"),
    )
}

struct Peer {
    read: OwnedReadHalf,
    write: OwnedWriteHalf,
}

/// A frame that came, or the end.
struct Came {
    kind: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Peer {
    /// With the preface sent, and settings.
    async fn of(node: &Served) -> Self {
        let mut socket = node.connect().await;
        let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        hello.extend(frame(SETTINGS, 0, 0, &[]));
        socket.write_all(&hello).await.unwrap();
        let (read, write) = socket.into_split();
        Self { read, write }
    }

    /// What the node no longer reads is lost.
    async fn send(&mut self, bytes: &[u8]) -> bool {
        self.write.write_all(bytes).await.is_ok()
    }

    async fn read(&mut self) -> Option<Came> {
        let read = &mut self.read;
        in_time(async {
            let mut head = [0; 9];
            read.read_exact(&mut head).await.ok()?;
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            read.read_exact(&mut payload).await.ok()?;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            Some(Came {
                kind: head[3],
                stream,
                payload,
            })
        })
        .await
    }

    /// Reads until a frame of this kind comes.
    async fn until(&mut self, kind: u8) -> Came {
        loop {
            let came = self.read().await.expect("the node still talks");
            if came.kind == kind {
                return came;
            }
        }
    }

    /// Reads until the node closes; the code of its last GOAWAY, if it sent one.
    async fn until_closed(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some(came) = self.read().await {
            if came.kind == GO_AWAY {
                code = Some(u32::from_be_bytes(came.payload[4..8].try_into().unwrap()));
            }
        }
        code
    }
}

/// Writes the same bytes for as long as the node takes them; the code of its GOAWAY, if it sent one.
async fn flood(node: &Served, bytes: &[u8]) -> Option<u32> {
    let Peer { mut read, mut write } = Peer::of(node).await;
    let mut answers = Vec::new();
    in_time(async {
        let write = async { while write.write_all(bytes).await.is_ok() {} };
        let read = async { while read.read_buf(&mut answers).await.is_ok_and(|read| read > 0) {} };
        tokio::join!(write, read)
    })
    .await;
    let mut rest = &answers[..];
    while rest.len() >= 17 {
        if rest[3] == GO_AWAY {
            return Some(u32::from_be_bytes(rest[13..17].try_into().unwrap()));
        }
        let length = u32::from_be_bytes([0, rest[0], rest[1], rest[2]]) as usize;
        rest = rest.get(9 + length..).unwrap_or_default();
    }
    None
}

#[tokio::test]
async fn a_connection_that_asks_nothing_is_cut_like_a_silent_one() {
    let node = Served::start(|limits| limits.header_read_timeout = SHORT).await;
    let mut peer = Peer::of(&node).await;
    peer.until_closed().await;
    // Half a head, and a head whose rest never comes.
    let block = head(false, "/v1/users");
    for begun in [
        frame(HEADERS, END_STREAM, 1, &block[..3]),
        frame(HEADERS, END_HEADERS, 1, &block)[..12].to_vec(),
    ] {
        let mut peer = Peer::of(&node).await;
        peer.send(&begun).await;
        peer.until_closed().await;
    }
    node.until_metric(r#"connections_cut_total{reason="header_read_timeout"} 3"#)
        .await;
}

#[tokio::test]
async fn a_connection_is_kept_between_requests_and_in_the_end_cut_whatever_it_pings() {
    let node = Served::start(|limits| limits.keep_alive_timeout = SHORT).await;
    node.room().await;
    let mut peer = Peer::of(&node).await;
    for stream in [1, 3] {
        peer.send(&get(stream)).await;
        assert_eq!(peer.until(HEADERS).await.stream, stream);
    }
    let ping = frame(PING, 0, 0, &[0; 8]);
    let mut pings = tokio::time::interval(SHORT / 10);
    in_time(async {
        loop {
            pings.tick().await;
            if !peer.send(&ping).await {
                return;
            }
        }
    })
    .await;
    node.until_metric(r#"connections_cut_total{reason="keep_alive_timeout"} 1"#)
        .await;
}

#[tokio::test]
async fn floods_of_frames_end_their_connection() {
    let node = Served::start(|_| ()).await;
    node.room().await;
    let many = |one: Vec<u8>| one.repeat(1000);
    flood(&node, &many(frame(PING, 0, 0, &[0; 8]))).await;
    flood(&node, &many(frame(SETTINGS, 0, 0, &[]))).await;
    flood(&node, &many(frame(WINDOW_UPDATE, 0, 0, &[0; 4]))).await;
    node.until_metric(r#"connections_cut_total{reason="idle_flood"} 2"#)
        .await;
    let mut empty = frame(HEADERS, END_HEADERS, 1, &head(true, "/v1/rooms"));
    empty.extend(many(frame(DATA, 0, 1, &[])));
    assert_eq!(flood(&node, &empty).await, Some(ENHANCE_YOUR_CALM));
    let mut endless = frame(HEADERS, 0, 1, &head(false, "/v1/rooms"));
    endless.extend(many(frame(CONTINUATION, 0, 1, &[])));
    assert_eq!(flood(&node, &endless).await, Some(ENHANCE_YOUR_CALM));
    node.is_alive().await;
}

#[tokio::test]
async fn requests_taken_back_at_once_end_their_connection() {
    let node = Served::start(|_| ()).await;
    node.room().await;
    let begun_and_reset = |stream: u32| [get(stream), frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat();
    let all: Vec<u8> = (0..20_000).flat_map(|n| begun_and_reset(2 * n + 1)).collect();
    let mut peer = Peer::of(&node).await;
    peer.send(&all).await;
    assert_eq!(peer.until_closed().await, Some(ENHANCE_YOUR_CALM));
    node.until_metric(r#"quorate_http_requests_in_flight{class="reads"} 0"#)
        .await;
    node.is_alive().await;
}

#[tokio::test]
async fn more_requests_at_once_than_a_connection_may_have() {
    let node = Served::start(|_| ()).await;
    node.room().await;
    node.replica.hold(true);
    let mut peer = Peer::of(&node).await;
    let all: Vec<u8> = (0..300).flat_map(|n| get(2 * n + 1)).collect();
    peer.send(&all).await;
    let refused = peer.until(RST_STREAM).await;
    assert_eq!(
        (refused.stream, refused.payload),
        (2 * 256 + 1, 7_u32.to_be_bytes().to_vec())
    );
    node.until_metric(r#"quorate_http_requests_in_flight{class="reads"} 256"#)
        .await;
    drop(peer);
    // What nobody waits for any more is given up.
    node.until_metric(r#"quorate_http_requests_in_flight{class="reads"} 0"#)
        .await;
    node.replica.hold(false);
    node.is_alive().await;
}

#[tokio::test]
async fn a_body_that_does_not_come_or_drips_is_a_408_and_the_connection_lives() {
    let node = Served::start(|limits| (limits.body_read_timeout, limits.body_window) = (10 * SHORT, SHORT)).await;
    node.room().await;
    let mut peer = Peer::of(&node).await;
    peer.send(&frame(HEADERS, END_HEADERS, 1, &head(true, "/v1/rooms")))
        .await;
    let mut drips = tokio::time::interval(Duration::from_millis(10));
    let drop_of_body = frame(DATA, 0, 1, b" ");
    let Peer { read, mut write } = peer;
    let drip = async {
        loop {
            drips.tick().await;
            write.write_all(&drop_of_body).await.unwrap();
        }
    };
    // Broken off between two drops, never within one: a frame is one write.
    let refused = node.until_metric(r#"status="408"} 1"#);
    tokio::select! { () = refused => {}, () = drip => unreachable!("it drips for ever") }
    let mut peer = Peer { read, write };
    assert_eq!(peer.until(HEADERS).await.stream, 1);
    peer.send(&get(3)).await;
    assert_eq!(peer.until(HEADERS).await.stream, 3);
}
