//! A small HTTP server whose answers a test writes by hand.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What a client sent.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) method: String,
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

/// What the server does about it.
pub(crate) enum Reply {
    /// Status, headers, body; then the connection is closed.
    Whole(u16, Vec<(&'static str, String)>, String),
    /// An event stream of these pieces, then the end of the connection.
    Stream(Vec<(&'static str, String)>, Vec<String>),
    /// An event stream of these pieces that stays open.
    Open(Vec<String>),
    /// Closes the connection without a word.
    Close,
    /// Never answers.
    Silence,
}

pub(crate) struct FakeNode {
    pub(crate) url: String,
    received: Arc<Mutex<Vec<Received>>>,
    task: tokio::task::JoinHandle<()>,
}

impl FakeNode {
    /// Answers each request with `answer(request, number)`; numbers count from 0.
    pub(crate) async fn start<F>(answer: F) -> Self
    where
        F: Fn(&Received, usize) -> Reply + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let received = Arc::new(Mutex::new(Vec::new()));
        let (answer, log) = (Arc::new(answer), received.clone());
        let task = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let (answer, log) = (answer.clone(), log.clone());
                tokio::spawn(async move {
                    let mut socket = socket;
                    let Some(request) = read_request(&mut socket).await else {
                        return;
                    };
                    let reply = {
                        let mut log = log.lock().unwrap();
                        log.push(request.clone());
                        answer(&request, log.len() - 1)
                    };
                    perform(&mut socket, reply).await;
                });
            }
        });
        Self { url, received, task }
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A URL on which nothing listens.
pub(crate) async fn dead_url() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

pub(crate) fn json(status: u16, value: serde_json::Value) -> Reply {
    Reply::Whole(
        status,
        vec![("Content-Type", "application/json".into())],
        value.to_string(),
    )
}

pub(crate) fn problem(status: u16, code: &str, outcome: &str) -> serde_json::Value {
    serde_json::json!({
        "type": "about:blank", "title": "t", "status": status, "detail": "why", "code": code,
        "request_id": "r", "retryable": status >= 500, "outcome": outcome,
    })
}

async fn read_request(socket: &mut TcpStream) -> Option<Received> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
        if socket.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let mut start = lines.next().unwrap().split(' ');
    let (method, path) = (start.next().unwrap().to_owned(), start.next().unwrap().to_owned());
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length: usize = headers
        .get("content-length")
        .map_or(0, |length| length.parse().unwrap());
    while bytes.len() < head_end + 4 + length {
        if socket.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let body = String::from_utf8(bytes[head_end + 4..].to_vec()).unwrap();
    Some(Received {
        method,
        path,
        headers,
        body,
    })
}

async fn perform(socket: &mut TcpStream, reply: Reply) {
    // A client that has gone away is part of some tests.
    let _ = match reply {
        Reply::Whole(status, headers, body) => {
            let mut text = format!(
                "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n",
                body.len()
            );
            for (name, value) in headers {
                text.push_str(&format!("{name}: {value}\r\n"));
            }
            socket.write_all(format!("{text}\r\n{body}").as_bytes()).await
        }
        Reply::Stream(headers, pieces) => stream(socket, headers, pieces).await,
        Reply::Open(pieces) => {
            let written = stream(socket, Vec::new(), pieces).await;
            std::future::pending::<()>().await;
            written
        }
        Reply::Close => Ok(()),
        Reply::Silence => std::future::pending().await,
    };
}

async fn stream(
    socket: &mut TcpStream,
    headers: Vec<(&'static str, String)>,
    pieces: Vec<String>,
) -> std::io::Result<()> {
    let mut head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/event-stream\r\n".to_owned();
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    socket.write_all(format!("{head}\r\n").as_bytes()).await?;
    for piece in pieces {
        socket.write_all(piece.as_bytes()).await?;
        socket.flush().await?;
    }
    Ok(())
}
