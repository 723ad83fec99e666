//! Lists by pages.

use serde_json::{Value, json};

use crate::caller::Node;

/// Follows `Link` from page to page.
async fn walk(node: &Node, first: &str, list: &str, name: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut path = first.to_owned();
    loop {
        let page = node.get(&path).await.expect(200);
        let body = page.json();
        let items = body[list].as_array().unwrap().clone();
        assert!(items.len() <= 2);
        names.extend(items.iter().map(|item: &Value| item[name].as_str().unwrap().to_owned()));
        match page.header("link") {
            "" => {
                assert!(body.get("next_cursor").is_none());
                return names;
            }
            link => {
                let next = link
                    .strip_prefix('<')
                    .and_then(|link| link.strip_suffix(">; rel=\"next\""))
                    .unwrap();
                assert!(
                    next.ends_with(&format!("cursor={}", body["next_cursor"].as_str().unwrap())),
                    "{next}"
                );
                path = next.to_owned();
            }
        }
    }
}

#[tokio::test]
async fn every_list_in_pages() {
    let node = Node::furnished().await;
    for name in ["张三", "[Nick]|away", "c"] {
        node.post("/v1/users", json!({"user": name})).await.expect(201);
        node.post("/v1/rooms", json!({"room": name, "kind": "public"}))
            .await
            .expect(201);
    }
    for user in ["ann", "bob", "c"] {
        node.ask("PUT", &format!("/v1/rooms/hall/members/{user}"), &[])
            .await
            .expect(201);
    }
    let users = walk(&node, "/v1/users?limit=2", "users", "user").await;
    assert_eq!(users, ["[Nick]|away", "ann", "bob", "c", "张三"]);
    assert_eq!(walk(&node, "/api/users?limit=2", "users", "user").await, users);
    let rooms = walk(&node, "/v1/rooms?limit=2&level=local", "rooms", "room").await;
    assert_eq!(rooms, ["[Nick]|away", "c", "den", "hall", "张三"]);
    assert_eq!(
        walk(&node, "/v1/rooms/hall/members?limit=1", "members", "user").await,
        ["ann", "bob", "c"]
    );
}

#[tokio::test]
async fn a_user_lists_his_own_rooms() {
    let node = Node::furnished().await;
    let rooms = node
        .ask("GET", "/v1/rooms", &[("x-quorate-user", "ann")])
        .await
        .expect(200)
        .json();
    assert_eq!(rooms["rooms"].as_array().unwrap().len(), 1);
    assert_eq!(rooms["rooms"][0]["room"], "den");
}

#[tokio::test]
async fn cursors_are_opaque_and_checked() {
    let node = Node::furnished().await;
    let page = node.get("/v1/users?limit=1").await.expect(200).json();
    let cursor = page["next_cursor"].as_str().unwrap();
    node.get(&format!("/v1/rooms?cursor={cursor}"))
        .await
        .problem(400, "bad_request");
    for cursor in ["", "ann", "%00", "u61zz"] {
        node.get(&format!("/v1/users?cursor={cursor}"))
            .await
            .problem(400, "bad_request");
    }
}
