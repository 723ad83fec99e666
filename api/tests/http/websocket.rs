//! `/v1/ws` over real sockets: that a send means the same as over HTTP, and what a client may do to it.

mod bounds;
mod frames;
mod parity;
mod who;

use std::net::SocketAddr;

use futures::{SinkExt, StreamExt};
use http::{HeaderName, HeaderValue};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::caller::in_time;
use crate::contract;
use crate::sockets::Served;

/// The client's end.
struct Socket {
    stream: WebSocketStream<TcpStream>,
    hello: Value,
}

/// A client who does not read has little room for what he does not read.
const SMALL_BUFFER: u32 = 4 << 10;

impl Socket {
    async fn open(node: &Served, headers: &[(&str, &str)]) -> Self {
        Self::try_open(node.addr, headers).await.unwrap()
    }

    /// The status and the code of a refusal.
    async fn try_open(addr: SocketAddr, headers: &[(&str, &str)]) -> Result<Self, (u16, String)> {
        let mut request = format!("ws://{addr}/v1/ws").into_client_request().unwrap();
        for (name, value) in headers {
            let name = HeaderName::try_from(*name).unwrap();
            request
                .headers_mut()
                .append(name, HeaderValue::from_str(value).unwrap());
        }
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(SMALL_BUFFER).unwrap();
        let socket = socket.connect(addr).await.unwrap();
        match in_time(client_async(request, socket)).await {
            Ok((stream, _)) => {
                let mut this = Self {
                    stream,
                    hello: Value::Null,
                };
                this.hello = this.hear().await;
                assert_eq!(this.hello["type"], "hello");
                Ok(this)
            }
            Err(Error::Http(response)) => {
                let status = response.status().as_u16();
                let problem: Value = serde_json::from_slice(response.body().as_deref().unwrap_or_default()).unwrap();
                Err((status, problem["code"].as_str().unwrap().to_owned()))
            }
            Err(error) => panic!("{error}"),
        }
    }

    async fn say(&mut self, frame: Value) {
        self.put(Message::text(frame.to_string())).await;
    }

    async fn put(&mut self, message: Message) {
        in_time(self.stream.send(message)).await.unwrap();
    }

    /// The next frame, held against the document.
    async fn hear(&mut self) -> Value {
        loop {
            match in_time(self.stream.next()).await {
                Some(Ok(Message::Text(text))) => {
                    let frame = serde_json::from_str(&text).unwrap();
                    contract::check_frame(&frame).await;
                    return frame;
                }
                Some(Ok(Message::Ping(_))) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn ask(&mut self, frame: Value) -> Value {
        self.say(frame).await;
        self.hear().await
    }

    /// Sends a text under an id, and does not wait.
    async fn send(&mut self, id: &str, text: &str) {
        self.say(json!({"id": id, "type": "send", "room": "hall", "text": text}))
            .await;
    }

    /// The code and the reason with which the node closes; none where the connection just ended. What is said
    /// before is let go.
    async fn closed(&mut self) -> Option<(u16, String)> {
        loop {
            match in_time(self.stream.next()).await {
                Some(Ok(Message::Close(Some(frame)))) => return Some((frame.code.into(), frame.reason.to_string())),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return None,
            }
        }
    }

    async fn is_alive(&mut self) {
        let pong = self.ask(json!({"id": "alive", "type": "ping"})).await;
        assert_eq!(pong, json!({"id": "alive", "type": "pong"}));
    }
}

/// The problem of an error frame, by its id and code.
#[track_caller]
fn problem<'a>(frame: &'a Value, id: &str, code: &str) -> &'a Value {
    assert_eq!(frame["type"], "error", "{frame}");
    assert_eq!(
        frame.get("id").and_then(Value::as_str).unwrap_or_default(),
        id,
        "{frame}"
    );
    assert_eq!(frame["problem"]["code"], code, "{frame}");
    &frame["problem"]
}

fn close(code: u16, reason: &str) -> Option<(u16, String)> {
    Some((code, reason.to_owned()))
}
