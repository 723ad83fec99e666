//! Sockets to a node whose answers the test writes.

use quorate_client::{Client, Options};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

use super::super::http::{Protocol, Wiring};
use super::*;

type Accepted = WebSocketStream<TcpStream>;

/// A node that says hello to each connection, and then does what the test's function does.
async fn node<F>(serve: impl Fn(usize, Accepted) -> F + Send + 'static) -> String
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        for number in 0.. {
            let (socket, _) = listener.accept().await.unwrap();
            let mut stream = accept_hdr_async(socket, subprotocol).await.unwrap();
            let hello = json!({"type": "hello", "node": 1, "leader": 1, "term": 1});
            stream.send(Message::text(hello.to_string())).await.unwrap();
            tokio::spawn(serve(number, stream));
        }
    });
    url
}

#[allow(clippy::result_large_err)]
fn subprotocol(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    assert_eq!(request.headers()["sec-websocket-protocol"], SUBPROTOCOL);
    assert_eq!(request.headers()["authorization"], "Bearer secret");
    let chosen = HeaderValue::from_static(SUBPROTOCOL);
    response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, chosen);
    Ok(response)
}

fn sockets(url: &str, count: usize) -> Sockets {
    let wiring = Wiring {
        nodes: vec![url.to_owned()],
        token: Some("secret".into()),
        user: None,
        protocol: Protocol::Http1,
        connections: 1,
    };
    let client = Client::new(&[url], Options::default()).unwrap();
    Sockets::new(&Http::new(&wiring).unwrap(), &Stage::empty(&client, "test"), count)
}

async fn ask(sockets: &Sockets, client: usize, id: u64) -> Result<Value, Fault> {
    let frame = json!({"type": "send", "id": id.to_string(), "room": "r", "text": "t"});
    let answer = sockets.ask(client, id, frame.to_string().into()).await?;
    Ok(serde_json::from_slice(&answer).unwrap())
}

async fn next(stream: &mut Accepted) -> Option<Value> {
    loop {
        match stream.next().await?.ok()? {
            Message::Text(text) => return Some(serde_json::from_str(&text).unwrap()),
            Message::Close(_) => return None,
            _ => {}
        }
    }
}

#[tokio::test]
async fn answers_find_those_who_asked_in_whatever_order_they_come() {
    let url = node(|_, mut stream| async move {
        let mut asked = Vec::new();
        while asked.len() < 3 {
            asked.push(next(&mut stream).await.unwrap()["id"].clone());
        }
        stream.send(Message::Ping("still there?".into())).await.unwrap();
        for (place, id) in asked.iter().enumerate().rev() {
            let answer = match place {
                1 => json!({"type": "error", "id": id, "problem": {"code": "overloaded", "status": 429}}),
                _ => json!({"type": "sent", "id": id, "seq": place}),
            };
            stream.send(Message::text(answer.to_string())).await.unwrap();
        }
        assert!(
            next(&mut stream).await.is_none(),
            "it says goodbye when nobody asks any more"
        );
    })
    .await;
    let sockets = sockets(&url, 1);
    let (first, second, third) = tokio::join!(ask(&sockets, 0, 10), ask(&sockets, 1, 11), ask(&sockets, 2, 12));
    assert_eq!(
        (first.unwrap()["seq"].as_u64(), third.unwrap()["seq"].as_u64()),
        (Some(0), Some(2))
    );
    assert_eq!(second, Err(Fault::code("overloaded")));
}

#[tokio::test]
async fn a_lost_connection_is_told_to_all_who_wait_and_the_next_request_opens_another() {
    let url = node(|number, mut stream| async move {
        while let Some(asked) = next(&mut stream).await {
            if number == 0 && asked["id"] == "1" {
                return;
            }
            if number > 0 {
                let answer = json!({"type": "sent", "id": asked["id"], "seq": number});
                stream.send(Message::text(answer.to_string())).await.unwrap();
            }
        }
    })
    .await;
    let sockets = sockets(&url, 1);
    let (first, second) = tokio::join!(ask(&sockets, 0, 0), ask(&sockets, 1, 1));
    let lost = Err(Fault::code(CONNECTION_LOST));
    assert_eq!((first, second), (lost.clone(), lost));
    assert_eq!(ask(&sockets, 0, 2).await.unwrap()["seq"], 1);
}

#[tokio::test]
async fn clients_are_spread_over_the_sockets() {
    let url = node(|number, mut stream| async move {
        while let Some(asked) = next(&mut stream).await {
            let answer = json!({"type": "sent", "id": asked["id"], "seq": number});
            stream.send(Message::text(answer.to_string())).await.unwrap();
        }
    })
    .await;
    let sockets = sockets(&url, 3);
    let mut seen = Vec::new();
    for client in 0..6 {
        seen.push(ask(&sockets, client, client as u64).await.unwrap()["seq"].clone());
    }
    assert_eq!(seen, [0, 1, 2, 0, 1, 2]);
}

#[tokio::test]
async fn a_node_that_is_not_there_is_no_connection() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    assert_eq!(ask(&sockets(&url, 1), 0, 0).await, Err(Fault::code(NO_CONNECTION)));
}
