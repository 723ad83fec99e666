//! One connection of a socket: opened within bounded time, then frames in both directions.

use std::task::Poll;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error as WsError, Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::route::Hints;
use crate::wire::Problem;
use crate::wire::socket::{Hello, SUBPROTOCOL};

pub(super) struct Connection {
    stream: WebSocketStream<TcpStream>,
    /// Something was written and not handed to the system yet.
    unflushed: bool,
}

/// Why there is no connection.
pub(super) enum NotOpen {
    /// The node is there, and refuses: another would too.
    Refused(Box<Problem>),
    Failed(String),
}

/// A frame, or in words why there are no more.
pub(super) enum Event {
    Text(Utf8Bytes),
    /// Something that needs no answer was heard.
    Life,
    Lost(String),
}

impl Connection {
    /// `connect` bounds the connection, `within` what the node then has to say before it can be used.
    pub(super) async fn open(
        url: &str,
        identity: &HeaderMap,
        connect: Duration,
        within: Duration,
    ) -> Result<(Self, Hints), NotOpen> {
        let failed = |what: &str, why: &dyn std::fmt::Display| NotOpen::Failed(format!("{what}: {why}"));
        let parsed = Url::parse(url).map_err(|error| failed("not a URL", &error))?;
        let host = parsed.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let port = parsed.port_or_known_default().unwrap_or(80);
        let socket = tokio::time::timeout(connect, TcpStream::connect((host, port)))
            .await
            .map_err(|_| failed("failed to connect", &"no answer in time"))?
            .map_err(|error| failed("failed to connect", &error))?;
        socket
            .set_nodelay(true)
            .map_err(|error| failed("failed to set TCP_NODELAY", &error))?;
        let target = format!("ws{}/v1/ws", url.strip_prefix("http").unwrap_or(url));
        let mut request = target
            .into_client_request()
            .map_err(|error| failed("not a URL", &error))?;
        request.headers_mut().extend(identity.clone());
        request
            .headers_mut()
            .insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        let begun = async {
            let (stream, _) = client_async(request, socket).await.map_err(not_open)?;
            let mut this = Self {
                stream,
                unflushed: false,
            };
            loop {
                match this.event().await {
                    Event::Text(text) => {
                        let hello: Hello = serde_json::from_str(&text)
                            .map_err(|error| failed("the node does not begin as it should", &error))?;
                        let hints = Hints {
                            node: Some(hello.node),
                            leader: Some(hello.leader),
                        };
                        return Ok((this, hints));
                    }
                    Event::Life => {}
                    Event::Lost(why) => return Err(NotOpen::Failed(why)),
                }
            }
        };
        tokio::time::timeout(within, begun)
            .await
            .unwrap_or_else(|_| Err(failed("failed to open a WebSocket", &"no answer in time")))
    }

    /// Written with the next [`Connection::event`]. Never waits: what is in flight bounds what there is to be kept.
    pub(super) fn put(&mut self, frame: Utf8Bytes) {
        self.unflushed = true;
        // What fails here fails the next read too.
        if let Err(error) = self.stream.start_send_unpin(Message::Text(frame)) {
            tracing::debug!(%error, "failed to write a frame");
        }
    }

    /// Reads while it writes: a node that is not read from does not read. Dropped before it is ready, it loses nothing.
    pub(super) async fn event(&mut self) -> Event {
        std::future::poll_fn(|cx| {
            if let Poll::Ready(next) = self.stream.poll_next_unpin(cx) {
                return Poll::Ready(match next {
                    Some(Ok(Message::Text(text))) => Event::Text(text),
                    Some(Ok(Message::Close(frame))) => Event::Lost(match frame {
                        Some(frame) => format!("the node has closed it: {} {}", frame.code, frame.reason),
                        None => "the node has closed it".to_owned(),
                    }),
                    Some(Ok(_)) => {
                        // A ping: its answer is to be written.
                        self.unflushed = true;
                        Event::Life
                    }
                    Some(Err(error)) => Event::Lost(format!("the connection failed: {error}")),
                    None => Event::Lost("the connection ended".to_owned()),
                });
            }
            if self.unflushed {
                match self.stream.poll_flush_unpin(cx) {
                    Poll::Ready(Ok(())) => self.unflushed = false,
                    Poll::Ready(Err(error)) => {
                        return Poll::Ready(Event::Lost(format!("the connection failed: {error}")));
                    }
                    Poll::Pending => {}
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Says goodbye, without waiting for long.
    pub(super) async fn close(mut self, within: Duration) {
        // Whoever does not hear it notices the end of the connection.
        let _ = tokio::time::timeout(within, self.stream.close(None)).await;
    }
}

/// Of a refusal the body may not be there yet; its status is.
fn not_open(error: WsError) -> NotOpen {
    let WsError::Http(response) = error else {
        return NotOpen::Failed(format!("failed to open a WebSocket: {error}"));
    };
    let status = response.status();
    let body = response.body().as_deref().unwrap_or_default();
    let problem: Problem = serde_json::from_slice(body).unwrap_or_else(|_| Problem {
        type_: "about:blank".into(),
        title: status.canonical_reason().unwrap_or("Error").into(),
        status: status.as_u16(),
        detail: "the node refuses a WebSocket".into(),
        code: format!("http_{}", status.as_u16()),
        request_id: String::new(),
        retryable: !status.is_client_error(),
        outcome: "not_applied".into(),
    });
    match status.as_u16() {
        400..=499 if !matches!(status.as_u16(), 408 | 429) => NotOpen::Refused(Box::new(problem)),
        _ => NotOpen::Failed(format!("{} ({} {})", problem.detail, problem.status, problem.code)),
    }
}
