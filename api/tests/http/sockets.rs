//! What comes over a socket and is no request, or half of one: it may end bare, and the node goes on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quorate_api::{ApiConfig, Limits, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::caller::in_time;
use crate::memory::MemoryReplica;

pub(crate) struct Served {
    pub(crate) addr: SocketAddr,
    pub(crate) replica: Arc<MemoryReplica>,
    pub(crate) stop: CancellationToken,
    pub(crate) task: JoinHandle<std::io::Result<()>>,
}

/// Short enough to wait for, long enough for a busy machine.
pub(crate) const SHORT: Duration = Duration::from_millis(150);

impl Served {
    pub(crate) async fn start(change: impl FnOnce(&mut Limits)) -> Self {
        let mut limits = Limits::default();
        change(&mut limits);
        Self::start_with(ApiConfig {
            limits,
            ..ApiConfig::default()
        })
        .await
    }

    pub(crate) async fn start_with(config: ApiConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let replica = MemoryReplica::new();
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve(listener, replica.clone(), config, stop.clone().cancelled_owned()));
        Self {
            addr,
            replica,
            stop,
            task,
        }
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.unwrap()
    }

    /// Sends the bytes and reads until the node closes; a reset counts as closed.
    async fn exchange(&self, bytes: &[u8]) -> String {
        let mut socket = self.connect().await;
        // The node may close before it has read everything.
        let _ = socket.write_all(bytes).await;
        read_to_end(&mut socket).await
    }

    /// A whole request on a connection of its own.
    pub(crate) async fn request(&self, method: &str, path: &str, body: &str) -> String {
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: q\r\ncontent-type: application/json\r\nconnection: close");
        self.exchange(format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).as_bytes())
            .await
    }

    pub(crate) async fn is_alive(&self) {
        let answer = self.request("GET", "/livez", "").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }

    pub(crate) async fn room(&self) {
        let created = self
            .request("POST", "/v1/rooms", r#"{"room":"hall","kind":"public"}"#)
            .await;
        assert!(created.starts_with("HTTP/1.1 201 "), "{created}");
    }

    pub(crate) async fn until_metric(&self, line: &str) {
        in_time(async {
            while !self.request("GET", "/metrics", "").await.contains(line) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

pub(crate) async fn read_to_end(socket: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let mut piece = vec![0; 16 << 10];
    while let Ok(bytes @ 1..) = in_time(socket.read(&mut piece)).await {
        all.extend_from_slice(&piece[..bytes]);
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// Reads until the text has come.
async fn read_until(socket: &mut TcpStream, wanted: &str) -> String {
    let mut all = String::new();
    let mut piece = vec![0; 4096];
    while !all.contains(wanted) {
        let bytes = in_time(socket.read(&mut piece)).await.unwrap();
        assert_ne!(bytes, 0, "closed after {all}");
        all.push_str(&String::from_utf8_lossy(&piece[..bytes]));
    }
    all
}

#[tokio::test]
async fn silence_and_half_a_head_are_cut() {
    let node = Served::start(|limits| limits.header_read_timeout = SHORT).await;
    assert_eq!(node.exchange(b"").await, "");
    assert_eq!(node.exchange(b"GET /livez HTT").await, "");
    assert_eq!(node.exchange(b"GET /livez HTTP/1.1\r\nhost: q\r\nx-half").await, "");
    assert_eq!(node.exchange(b"PRI * HT").await, "");
    node.until_metric(r#"connections_cut_total{reason="header_read_timeout"} 4"#)
        .await;
    node.is_alive().await;
}

#[tokio::test]
async fn a_head_that_drips_is_cut() {
    let node = Served::start(|limits| limits.header_read_timeout = SHORT).await;
    let (mut read, mut write) = node.connect().await.into_split();
    let drip = async {
        write.write_all(b"GET /livez HTTP/1.1\r\nx-drip: ").await.unwrap();
        let mut drops = tokio::time::interval(SHORT / 10);
        loop {
            drops.tick().await;
            if write.write_all(b"x").await.is_err() {
                return;
            }
        }
    };
    let ended = async {
        let mut byte = [0];
        matches!(read.read(&mut byte).await, Ok(0) | Err(_))
    };
    tokio::select! {
        () = drip => {}
        ended = ended => assert!(ended),
    }
    node.is_alive().await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_a_408() {
    let node = Served::start(|limits| limits.body_read_timeout = SHORT).await;
    let head = "POST /v1/rooms HTTP/1.1\r\nhost: q\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    let answer = node.exchange(head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("application/problem+json"), "{answer}");
    node.is_alive().await;
}

#[tokio::test]
async fn garbage_and_contradictions() {
    let node = Served::start(|limits| limits.header_read_timeout = SHORT).await;
    let post = "POST /v1/rooms HTTP/1.1\r\nhost: q\r\ncontent-type: application/json\r\n";
    for bytes in [
        b"\x00\xff\xfe garbage\r\n\r\n".to_vec(),
        b"GET\r\n\r\n".to_vec(),
        b"GET /livez HTTP/9.9\r\n\r\n".to_vec(),
        b"GET /livez HTTP/1.1\r\nno colon\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        format!("{post}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}x").into_bytes(),
        format!("{post}content-length: 2, 3\r\n\r\n{{}}x").into_bytes(),
        format!("{post}content-length: -2\r\n\r\n{{}}").into_bytes(),
        format!("{post}transfer-encoding: chunked\r\n\r\nzz\r\n{{}}\r\n0\r\n\r\n").into_bytes(),
    ] {
        let answer = node.exchange(&bytes).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{:?}: {answer}",
            String::from_utf8_lossy(&bytes)
        );
        node.is_alive().await;
    }
}

#[tokio::test]
async fn a_flood_of_headers() {
    let node = Served::start(|limits| limits.header_read_timeout = SHORT).await;
    let many: String = (0..101).map(|n| format!("x-{n}: v\r\n")).collect();
    let large = format!("x-large: {}\r\n", "v".repeat(40 << 10));
    for flood in [many, large] {
        let answer = node
            .exchange(format!("GET /livez HTTP/1.1\r\n{flood}\r\n").as_bytes())
            .await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
        node.is_alive().await;
    }
    let within: String = (0..90).map(|n| format!("x-{n}: {}\r\n", "v".repeat(200))).collect();
    let answer = node
        .exchange(format!("GET /livez HTTP/1.1\r\nconnection: close\r\n{within}\r\n").as_bytes())
        .await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn connections_are_kept_and_in_the_end_cut() {
    let node = Served::start(|limits| limits.keep_alive_timeout = SHORT).await;
    let mut socket = node.connect().await;
    for _ in 0..3 {
        socket
            .write_all(b"GET /livez HTTP/1.1\r\nhost: q\r\n\r\n")
            .await
            .unwrap();
        assert!(read_until(&mut socket, "alive\n").await.starts_with("HTTP/1.1 200 "));
    }
    assert_eq!(read_to_end(&mut socket).await, "");
    node.until_metric(r#"connections_cut_total{reason="keep_alive_timeout"} 1"#)
        .await;
}

#[tokio::test]
async fn http2_without_tls() {
    let node = Served::start(|_| ()).await;
    let mut socket = node.connect().await;
    // The preface and empty settings.
    socket
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .unwrap();
    let mut head = [0; 9];
    socket.read_exact(&mut head).await.unwrap();
    assert_eq!(head[3], 4, "a settings frame: {head:?}");
}

#[tokio::test]
async fn beyond_the_bound_connections_are_turned_away() {
    let node = Served::start(|limits| limits.connections_max = 1).await;
    let mut first = node.connect().await;
    first
        .write_all(b"GET /livez HTTP/1.1\r\nhost: q\r\n\r\n")
        .await
        .unwrap();
    read_until(&mut first, "alive\n").await;
    let refused = node.exchange(b"").await;
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    drop(first);
    // The place is free once the node has seen the end of the first.
    while !node.request("GET", "/livez", "").await.starts_with("HTTP/1.1 200 ") {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_peer_that_takes_nothing_is_cut() {
    let node = Served::start(|limits| limits.write_stall_timeout = SHORT).await;
    node.room().await;
    let message = format!(r#"{{"text":"{}"}}"#, "x".repeat(65_000));
    let messages = vec![message; 60].join(",");
    let sent = node
        .request(
            "POST",
            "/v1/rooms/hall/messages/batch",
            &format!(r#"{{"messages":[{messages}]}}"#),
        )
        .await;
    assert!(sent.starts_with("HTTP/1.1 201 "), "{sent}");
    let mut socket = node.connect().await;
    let page = b"GET /v1/rooms/hall/messages?limit=500 HTTP/1.1\r\nhost: q\r\n\r\n";
    // More than the buffers of both ends hold.
    for _ in 0..8 {
        socket.write_all(page).await.unwrap();
    }
    // One connection is the one that asks.
    node.until_metric("quorate_http_connections 1\n").await;
    assert!(read_to_end(&mut socket).await.len() < 8 * 60 * 65_000);
}

#[tokio::test]
async fn a_large_refused_body_still_gets_its_answer() {
    let node = Served::start(|_| ()).await;
    let body = " ".repeat((4 << 20) + 1);
    let answer = node.request("POST", "/v1/rooms", &body).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    let answer = node.request("POST", "/v1/nowhere", &body).await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
}

#[tokio::test]
async fn shutdown_lets_requests_finish_and_ends_streams() {
    let node = Served::start(|_| ()).await;
    node.room().await;
    let mut idle = node.connect().await;
    idle.write_all(b"GET /livez HTTP/1.1\r\nhost: q\r\n\r\n").await.unwrap();
    read_until(&mut idle, "alive\n").await;
    let mut stream = node.connect().await;
    stream
        .write_all(b"GET /v1/rooms/hall/stream HTTP/1.1\r\nhost: q\r\n\r\n")
        .await
        .unwrap();
    read_until(&mut stream, "event: bookmark").await;
    let seen = node.replica.writes.lock().unwrap().len();
    node.replica.hold(true);
    let mut under_way = node.connect().await;
    let body = r#"{"text":"a"}"#;
    let head = "POST /v1/rooms/hall/messages HTTP/1.1\r\nhost: q\r\ncontent-type: application/json\r\ncontent-length";
    under_way
        .write_all(format!("{head}: {}\r\n\r\n{body}", body.len()).as_bytes())
        .await
        .unwrap();
    while node.replica.writes.lock().unwrap().len() == seen {
        tokio::task::yield_now().await;
    }

    node.stop.cancel();
    let rest = read_to_end(&mut stream).await;
    assert!(rest.ends_with("0\r\n\r\n"), "{rest}");
    assert_eq!(read_to_end(&mut idle).await, "");
    assert!(TcpStream::connect(node.addr).await.is_err());
    assert!(!node.task.is_finished());
    node.replica.hold(false);
    let answer = read_to_end(&mut under_way).await;
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    in_time(node.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn shutdown_waits_only_so_long() {
    let node = Served::start(|limits| limits.shutdown_grace = SHORT).await;
    node.replica.hold(true);
    let mut under_way = node.connect().await;
    under_way
        .write_all(b"GET /v1/users HTTP/1.1\r\nhost: q\r\n\r\n")
        .await
        .unwrap();
    while node.replica.reads.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    node.stop.cancel();
    in_time(node.task).await.unwrap().unwrap();
    assert_eq!(read_to_end(&mut under_way).await, "");
}
