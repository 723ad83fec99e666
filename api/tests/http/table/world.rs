//! The node that the tables ask: furnished so that there is something for every refusal.

use std::sync::Arc;

use quorate_api::{Accounts, ApiConfig};
use quorate_state_machine::Command;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::caller::Node;
use crate::memory::MemoryReplica;

/// Under this key ann, bob, eve and root have asked for something else each.
pub(super) const USED: &str = "used";
const PASSWORD: &str = "correct horse";
/// Its hash, made with the least work that there is: every test furnishes a node of its own.
const HASH: &str = "$argon2id$v=19$m=8,t=1,p=1$W9UGSyuuALSNXWQv7xv1Xg$DRt+Gkli4ulZqkQYznsCsznnfS4n0zoWKG0kqp7ffSM";

static WORLD: OnceCell<World> = OnceCell::const_new();

pub(super) struct World {
    replica: Arc<MemoryReplica>,
    /// The token of ann's session.
    pub(super) session: String,
    /// The token of one whose time is over.
    pub(super) ended: String,
    /// Ann's token of the lock `held`.
    pub(super) held: u64,
    /// Her token of the lock `late`, whose ttl is over.
    pub(super) late: u64,
}

/// The same for all tests of a process: it is only looked at, and copied.
pub(super) async fn world() -> &'static World {
    WORLD.get_or_init(World::furnish).await
}

impl World {
    /// A node with a copy of its own.
    pub(super) fn node(&self, config: ApiConfig) -> Node {
        Node::over(self.replica.twin(), config)
    }

    async fn furnish() -> Self {
        let node = Node::new();
        node.replica.apply_at_once([Command::CreateUser {
            user: "ann".to_owned(),
            display_name: None,
            email: None,
            password_hash: Some(HASH.to_owned()),
            attributes: None,
        }]);
        let long = json!({"a": "x".repeat(16_000)});
        for body in [
            json!({"user": "bob"}),
            json!({"user": "eve"}),
            json!({"user": "full", "attributes": long}),
        ] {
            node.post("/v1/users", body).await.expect(201);
        }
        // `hall` and `full` are open to all, `den` is ann's with bob in it, `pair` is theirs alone; eve is a
        // stranger everywhere.
        for (who, body) in [
            ("", json!({"room": "hall", "kind": "public"})),
            ("", json!({"room": "full", "kind": "public", "attributes": long})),
            ("ann", json!({"room": "den", "kind": "group", "members": ["bob"]})),
            ("ann", json!({"room": "pair", "kind": "direct", "members": ["bob"]})),
        ] {
            done(&node, who, "POST", "/v1/rooms", body).await;
        }
        // In the hall: one that was edited, one that was redacted, and bob's.
        for (who, room, body) in [
            ("ann", "hall", json!({"text": "hello", "client_id": "c1"})),
            ("ann", "hall", json!({"text": "secret"})),
            ("bob", "hall", json!({"text": "hi"})),
            ("ann", "den", json!({"text": "hello"})),
        ] {
            done(&node, who, "POST", &format!("/v1/rooms/{room}/messages"), body).await;
        }
        let edit = json!({"text": "hello, all"});
        done(&node, "ann", "PATCH", "/v1/rooms/hall/messages/1", edit).await;
        done(&node, "ann", "DELETE", "/v1/rooms/hall/messages/2", Value::Null).await;

        let held = acquire(&node, "held", 3_600_000).await;
        let late = acquire(&node, "late", 100).await;
        let free = acquire(&node, "free", 1000).await;
        let release = format!("/v1/locks/free?token={free}");
        done(&node, "ann", "DELETE", &release, Value::Null).await;

        let session = sign_in(&node).await;
        let accounts = Accounts {
            session_ttl_ms: 1000,
            ..Accounts::default()
        };
        let config = ApiConfig {
            accounts,
            ..ApiConfig::default()
        };
        let ended = sign_in(&Node::over(node.replica.clone(), config)).await;
        node.replica.advance(1000);

        for who in ["", "ann", "bob", "eve"] {
            let mut headers = vec![("idempotency-key", USED)];
            headers.extend((!who.is_empty()).then_some(("x-quorate-user", who)));
            let asked = node.ask("DELETE", "/v1/users/nobody-else", &headers).await;
            asked.problem(404, "not_found");
        }
        Self {
            replica: node.replica,
            session,
            ended,
            held,
            late,
        }
    }
}

async fn done(node: &Node, who: &str, method: &str, path: &str, body: Value) -> Value {
    let who: Vec<_> = (!who.is_empty())
        .then_some(("x-quorate-user", who))
        .into_iter()
        .collect();
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let reply = node.send(method, path, &who, body).await;
    assert!(reply.status.is_success(), "{method} {path}: {reply:?}");
    if reply.body.is_empty() {
        Value::Null
    } else {
        reply.json()
    }
}

async fn acquire(node: &Node, lock: &str, ttl_ms: u64) -> u64 {
    let body = json!({"owner": "ann's laptop", "ttl_ms": ttl_ms});
    let granted = done(node, "ann", "PUT", &format!("/v1/locks/{lock}"), body).await;
    granted["token"].as_u64().unwrap()
}

async fn sign_in(node: &Node) -> String {
    let body = json!({"user": "ann", "password": PASSWORD});
    let session = done(node, "", "POST", "/v1/sessions", body).await;
    session["token"].as_str().unwrap().to_owned()
}
