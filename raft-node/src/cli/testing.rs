//! A store that lives in a test: whatever it is asked, the test's function answers.

use std::sync::Arc;
use std::time::Duration;

use quorate_client::{Client, Options};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Status and body of an answer; null is none. Instead of an answer, none breaks the connection.
pub(crate) type Answer = Option<(u16, Value)>;

/// Answers `(method, path with query, body)` as node 1 until the test ends, and returns the URL.
pub(crate) async fn serve<F>(answer: F) -> String
where
    F: Fn(&str, &str, &[u8]) -> Answer + Send + Sync + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(converse(socket, answer.clone()));
        }
    });
    url
}

/// A client that gives up soon.
pub(crate) fn client(url: &str) -> Client {
    let options = Options {
        deadline: Duration::from_secs(5),
        ..Options::default()
    };
    Client::new(&[url], options).expect("a good endpoint")
}

pub(crate) fn refusal(status: u16, code: &str) -> (u16, Value) {
    let problem = json!({"type": "about:blank", "title": "t", "status": status, "detail": "d", "code": code,
                         "request_id": "", "retryable": status >= 500, "outcome": "not_applied"});
    (status, problem)
}

/// One request a connection.
async fn converse<F>(mut socket: TcpStream, answer: Arc<F>) -> Option<()>
where
    F: Fn(&str, &str, &[u8]) -> Answer,
{
    let mut bytes = Vec::new();
    let (head, body) = loop {
        if socket.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let length = head
            .to_lowercase()
            .split("content-length: ")
            .nth(1)
            .and_then(|rest| rest.split('\r').next()?.parse().ok());
        if bytes.len() >= end + 4 + length.unwrap_or(0_usize) {
            break (head, bytes[end + 4..].to_vec());
        }
    };
    let mut words = head.split(' ');
    let (status, value) = answer(words.next()?, words.next()?, &body)?;
    let body = if value.is_null() {
        String::new()
    } else {
        value.to_string()
    };
    let head = format!(
        "HTTP/1.1 {status} X\r\nConnection: close\r\nX-Quorate-Node: 1\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all((head + &body).as_bytes()).await.ok()
}
