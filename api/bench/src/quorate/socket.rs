//! Requests over WebSockets (`GET /v1/ws`): many at a time on each, nothing retried, as over HTTP. What the
//! client library does beside (ids for repetitions, changes to the leader) would be measured with it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use quorate_client::wire::socket::SUBPROTOCOL;
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error as WsError, Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::http::{CONNECT_WITHIN, CONNECTION_LOST, Http, NO_CONNECTION, refused};
use super::stage::Stage;
use crate::target::Fault;

/// Requests that wait for being written to one socket. Who finds all places taken waits, and his time counts.
const QUEUE: usize = 256;
/// Answers that one socket waits for. Requests that were given up are among them, since their answers may still
/// come; beyond this they are forgotten.
const WAITING_MAX: usize = 4096;
/// How long a goodbye may take.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// Open sockets, each with a task of its own, which ends with this handle. A socket connects with its first
/// request, and after its connection was lost with the next one.
#[derive(Debug)]
pub struct Sockets {
    orders: Vec<mpsc::Sender<Order>>,
}

/// A request, and who waits for its answer.
#[derive(Debug)]
struct Order {
    id: u64,
    frame: Utf8Bytes,
    answer: oneshot::Sender<Result<Bytes, Fault>>,
}

/// What is looked at of each frame of a node; what a request asked for is read from it by whoever asked.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    problem: Option<Refusal<'a>>,
}

#[derive(Deserialize)]
struct Refusal<'a> {
    #[serde(borrow)]
    code: Cow<'a, str>,
}

impl Sockets {
    /// So many sockets, to each node in turn; each acts as one user, in turn as well.
    ///
    /// # Panics
    /// Without a socket, and outside a Tokio runtime.
    pub fn new(http: &Http, stage: &Stage, sockets: usize) -> Self {
        assert!(sockets > 0, "requests go over at least one socket");
        let open = |socket| {
            // Every caller has one request at a time, and waits for a place.
            let (orders, received) = mpsc::channel(QUEUE);
            let driver = Driver {
                node: http.url(socket, "/v1/ws"),
                headers: http.headers(stage.user_of(socket).as_deref()),
                orders: received,
            };
            tokio::spawn(driver.run());
            orders
        };
        Self {
            orders: (0..sockets).map(open).collect(),
        }
    }

    /// Sends the frame, which has this id, over the client's socket. The answer, as a frame, must be a success.
    pub(crate) async fn ask(&self, client: usize, id: u64, frame: Bytes) -> Result<Bytes, Fault> {
        let frame = Utf8Bytes::try_from(frame).expect("frames are made of text");
        let (answer, answered) = oneshot::channel();
        let order = Order { id, frame, answer };
        let lost = |_| Fault::code(CONNECTION_LOST);
        self.orders[client % self.orders.len()]
            .send(order)
            .await
            .map_err(|_| Fault::code(CONNECTION_LOST))?;
        answered.await.map_err(lost)?
    }
}

/// The task behind one socket.
struct Driver {
    node: Url,
    headers: HeaderMap,
    orders: mpsc::Receiver<Order>,
}

impl Driver {
    async fn run(mut self) {
        while let Some(order) = self.orders.recv().await {
            match Line::open(&self.node, &self.headers).await {
                Ok(line) => self.converse(line, order).await,
                Err(fault) => {
                    // Those who came meanwhile have waited for the same.
                    let mut next = Some(order);
                    while let Some(order) = next {
                        let _ = order.answer.send(Err(fault.clone()));
                        next = self.orders.try_recv().ok();
                    }
                }
            }
        }
    }

    /// Until the connection is lost, or nobody will ask any more.
    async fn converse(&mut self, mut line: Line, first: Order) {
        let mut waiting = HashMap::new();
        put(&mut line, &mut waiting, first);
        loop {
            // What has come is heard first, so that what is written goes out in one piece.
            tokio::select! {
                biased;
                heard = line.hear() => match heard {
                    Some(frame) => hear(&frame, &mut waiting),
                    None => {
                        for (_, answer) in waiting {
                            let _ = answer.send(Err(Fault::code(CONNECTION_LOST)));
                        }
                        return;
                    }
                },
                order = self.orders.recv() => match order {
                    Some(order) => {
                        put(&mut line, &mut waiting, order);
                        while let Ok(order) = self.orders.try_recv() {
                            put(&mut line, &mut waiting, order);
                        }
                    }
                    None => return line.close().await,
                },
            }
        }
    }
}

type Waiting = HashMap<u64, oneshot::Sender<Result<Bytes, Fault>>>;

fn put(line: &mut Line, waiting: &mut Waiting, order: Order) {
    if waiting.len() >= WAITING_MAX {
        waiting.retain(|_, answer| !answer.is_closed());
    }
    line.put(order.frame);
    waiting.insert(order.id, order.answer);
}

fn hear(frame: &Utf8Bytes, waiting: &mut Waiting) {
    let Ok(head) = serde_json::from_str::<Head<'_>>(frame) else {
        return;
    };
    let asked = head
        .id
        .and_then(|id| id.parse().ok())
        .and_then(|id: u64| waiting.remove(&id));
    // The greeting answers nobody, and who has given up is gone.
    let Some(answer) = asked else { return };
    let _ = answer.send(match (&*head.kind, head.problem) {
        ("error", Some(problem)) => Err(Fault::code(problem.code.into_owned())),
        _ => Ok(Bytes::copy_from_slice(frame.as_bytes())),
    });
}

/// An open connection.
struct Line {
    stream: WebSocketStream<TcpStream>,
    /// Something was written and not handed to the system yet.
    unflushed: bool,
}

impl Line {
    async fn open(node: &Url, headers: &HeaderMap) -> Result<Self, Fault> {
        tokio::time::timeout(CONNECT_WITHIN, Self::open_unbounded(node, headers))
            .await
            .unwrap_or_else(|_| Err(Fault::code(NO_CONNECTION)))
    }

    async fn open_unbounded(node: &Url, headers: &HeaderMap) -> Result<Self, Fault> {
        let nobody = || Fault::code(NO_CONNECTION);
        let host = node.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let port = node.port_or_known_default().unwrap_or(80);
        let socket = TcpStream::connect((host, port)).await.map_err(|_| nobody())?;
        socket.set_nodelay(true).map_err(|_| nobody())?;
        let target = format!("ws{}", node.as_str().strip_prefix("http").unwrap_or(node.as_str()));
        let mut request = target.into_client_request().map_err(|_| nobody())?;
        request.headers_mut().extend(headers.clone());
        request
            .headers_mut()
            .insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        let opened = client_async(request, socket).await;
        let (stream, _) = opened.map_err(|error| match error {
            WsError::Http(response) => refused(response.status(), response.body().as_deref().unwrap_or_default()),
            _ => nobody(),
        })?;
        Ok(Self {
            stream,
            unflushed: false,
        })
    }

    /// Written with the next [`Line::hear`]. What is in flight bounds what there is to be kept.
    fn put(&mut self, frame: Utf8Bytes) {
        self.unflushed = true;
        // What fails here fails the next read too.
        let _ = self.stream.start_send_unpin(Message::Text(frame));
    }

    /// The next frame of text; none when the connection is lost. Dropped before it is ready, it loses nothing.
    async fn hear(&mut self) -> Option<Utf8Bytes> {
        std::future::poll_fn(|cx| {
            while let Poll::Ready(next) = self.stream.poll_next_unpin(cx) {
                match next {
                    Some(Ok(Message::Text(text))) => return Poll::Ready(Some(text)),
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return Poll::Ready(None),
                    // A ping: its answer is to be written.
                    Some(Ok(_)) => self.unflushed = true,
                }
            }
            if self.unflushed {
                match self.stream.poll_flush_unpin(cx) {
                    Poll::Ready(Ok(())) => self.unflushed = false,
                    Poll::Ready(Err(_)) => return Poll::Ready(None),
                    Poll::Pending => {}
                }
            }
            Poll::Pending
        })
        .await
    }

    async fn close(mut self) {
        // Whoever does not hear it notices the end of the connection.
        let _ = tokio::time::timeout(CLOSE_WITHIN, self.stream.close(None)).await;
    }
}

#[cfg(test)]
mod tests;
