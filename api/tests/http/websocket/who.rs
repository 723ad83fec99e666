//! Who may open a socket, as whom he then sends, and for how long.

use quorate_api::{Accounts, ApiConfig, RootToken};
use serde_json::{Value, json};

use super::{Socket, close};
use crate::sockets::Served;

const ROOT_TOKEN: &str = "root-0123456789-0123456789-0123456789";

async fn served(enforced: bool) -> Served {
    let accounts = Accounts {
        enforced,
        root_token: Some(RootToken::new(ROOT_TOKEN).unwrap()),
        ..Accounts::default()
    };
    let node = Served::start_with(ApiConfig {
        accounts,
        ..ApiConfig::default()
    })
    .await;
    let root = Socket::open(&node, &[("authorization", &format!("Bearer {ROOT_TOKEN}"))]).await;
    drop(root);
    let open = crate::caller::Node::over(node.replica.clone(), ApiConfig::default());
    open.post("/v1/users", json!({"user": "ann", "password": "correct horse"}))
        .await
        .expect(201);
    open.post("/v1/rooms", json!({"room": "hall", "kind": "public"}))
        .await
        .expect(201);
    node
}

async fn sign_in(node: &Served) -> String {
    let answer = node
        .request("POST", "/v1/sessions", r#"{"user":"ann","password":"correct horse"}"#)
        .await;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let body: Value = serde_json::from_str(body).unwrap();
    body["token"].as_str().unwrap().to_owned()
}

async fn refused(node: &Served, headers: &[(&str, &str)]) -> (u16, String) {
    let opened = Socket::try_open(node.addr, headers).await;
    opened.map(|_| panic!("opened")).unwrap_err()
}

#[tokio::test]
async fn a_token_comes_in_a_header_or_as_a_subprotocol() {
    for enforced in [false, true] {
        let node = served(enforced).await;
        let token = sign_in(&node).await;
        let (bearer, offer) = (format!("Bearer {token}"), format!("quorate.v1, bearer.{token}"));
        let page = ("origin", "https://chat.example");
        for headers in [
            &[("authorization", bearer.as_str())][..],
            &[("sec-websocket-protocol", offer.as_str())],
            &[("sec-websocket-protocol", offer.as_str()), page],
            &[("authorization", bearer.as_str()), page],
        ] {
            let mut socket = Socket::open(&node, headers).await;
            socket.send("1", "hi").await;
            assert_eq!(socket.hear().await["sender"], "ann", "{headers:?}");
        }
        let unauthenticated = (401, "unauthenticated".to_owned());
        let bad = (400, "bad_request".to_owned());
        let unknown = format!("quorate.v1, bearer.qst_{}", "0".repeat(64));
        for (headers, expected) in [
            (&[("sec-websocket-protocol", unknown.as_str())][..], &unauthenticated),
            (&[("sec-websocket-protocol", "quorate.v1, bearer.")], &unauthenticated),
            // Any page could else be root where nobody signs in.
            (&[page], &unauthenticated),
            (&[page, ("x-quorate-user", "ann")], &unauthenticated),
            (
                &[
                    ("sec-websocket-protocol", offer.as_str()),
                    ("authorization", bearer.as_str()),
                ],
                &bad,
            ),
            (
                &[("sec-websocket-protocol", offer.as_str()), ("x-quorate-user", "ann")],
                &bad,
            ),
            (&[("sec-websocket-protocol", "chat")], &bad),
        ] {
            assert_eq!(refused(&node, headers).await, *expected, "{headers:?}");
        }
    }
}

#[tokio::test]
async fn a_request_that_is_no_handshake_hears_so() {
    let node = Served::start(|_| ()).await;
    let answer = node.request("GET", "/v1/ws", "").await;
    assert!(
        answer.starts_with("HTTP/1.1 400 ") && answer.contains("WebSocket"),
        "{answer}"
    );
}

#[tokio::test]
async fn the_end_of_a_session_ends_its_socket_after_what_was_at_work_is_answered() {
    let node = served(true).await;
    let token = sign_in(&node).await;
    let bearer = format!("Bearer {token}");
    let mut socket = Socket::open(&node, &[("authorization", &bearer)]).await;
    let mut root = Socket::open(&node, &[("authorization", &format!("Bearer {ROOT_TOKEN}"))]).await;
    node.replica.hold_outcomes(true);
    socket.send("1", "hi").await;
    // Signed out with the answer on its way: that waits too, but it is applied.
    let head = "DELETE /v1/sessions/current HTTP/1.1\r\nhost: q\r\nauthorization: ";
    let mut signing_out = node.connect().await;
    while node
        .replica
        .writes
        .lock()
        .unwrap()
        .iter()
        .filter(|(envelope, _)| envelope.request_id.ends_with("/1"))
        .count()
        == 0
    {
        tokio::task::yield_now().await;
    }
    tokio::io::AsyncWriteExt::write_all(&mut signing_out, format!("{head}{bearer}\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let closed = socket.hear_until_closed(&node).await;
    assert_eq!(closed, close(4401, "unauthenticated"));
    root.is_alive().await;
    assert_eq!(
        refused(&node, &[("authorization", &bearer)]).await,
        (401, "unauthenticated".to_owned())
    );
}

impl Socket {
    /// Lets outcomes go once the socket has noticed; the answer comes before the end.
    async fn hear_until_closed(&mut self, node: &Served) -> Option<(u16, String)> {
        // Frames are not read any more once it has: a ping is the proof.
        node.replica.hold_outcomes(false);
        let answer = self.hear().await;
        assert_eq!(
            (&answer["id"], &answer["type"]),
            (&json!("1"), &json!("sent")),
            "{answer}"
        );
        self.closed().await
    }
}
