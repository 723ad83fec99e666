//! Any node serves any request, and every answer says who gave it and what it reflects.

use quorate_torture::cluster::Cluster;
use quorate_torture::http::{Answer, Call};
use quorate_torture::workload::{messages, page_of};
use reqwest::Method;
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_on_any_node_is_forwarded_or_redirected() {
    let cluster = Cluster::options().start().await.unwrap();
    cluster.create_room(1, "hall").await.unwrap();
    let leader = cluster.leader().await.unwrap();
    for id in cluster.ids() {
        let sent = cluster
            .expect(id, Call::post(messages("hall"), &json!({ "text": "hi" })), 201)
            .await
            .unwrap();
        assert_eq!(sent.header("X-Quorate-Node"), Some(id.to_string().as_str()));
    }

    let path = format!("{}?redirect=true", messages("hall"));
    for follower in cluster.others(leader) {
        let call = Call::post(&path, &json!({ "text": format!("by way of {follower}") }));
        let redirected = cluster.expect(follower, call.clone(), 307).await.unwrap();
        let location = redirected.header("Location").unwrap().to_owned();
        let rest = location.strip_prefix(&cluster.node(leader).url());
        let rest = rest.unwrap_or_else(|| panic!("{location} is not on the leader, node {leader}"));
        assert!(rest.starts_with(&messages("hall")), "{location}");
        every_header(&redirected, follower, leader);
        cluster.expect(leader, call.at(rest), 201).await.unwrap();
    }
    // The leader has nobody to redirect to.
    cluster
        .expect(leader, Call::post(&path, &json!({ "text": "here" })), 201)
        .await
        .unwrap();
    let page = cluster.expect(leader, Call::get(messages("hall")), 200).await.unwrap();
    let (page, _) = page_of(&page).unwrap();
    assert_eq!(
        page.len(),
        6,
        "three forwarded, two redirected and followed, one direct: {page:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_on_one_node_is_read_on_any_other() {
    let cluster = Cluster::options().start().await.unwrap();
    cluster.create_room(1, "hall").await.unwrap();
    let mut written = 0;
    for _ in 0..5 {
        for writer in cluster.ids() {
            for reader in cluster.ids() {
                let call = Call::post(messages("hall"), &json!({ "text": "hi" }));
                let sent = cluster.expect(writer, call, 201).await.unwrap();
                written += 1;
                let position = sent.position().unwrap();
                let local = Call::get(format!("{}?level=local", messages("hall"))).min_position(&position);
                for (call, level) in [(local, "local"), (Call::get(messages("hall")), "linearizable")] {
                    let read = cluster.expect(reader, call, 200).await.unwrap();
                    assert_eq!(
                        page_of(&read).unwrap().1,
                        written,
                        "{level} on node {reader} after node {writer}"
                    );
                    assert_eq!(read.header("X-Quorate-Level"), Some(level));
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_answer_carries_the_headers() {
    let cluster = Cluster::options().start().await.unwrap();
    cluster.create_room(1, "hall").await.unwrap();
    let made = cluster.create_user(1, "ann").await.unwrap();
    let tag = made.header("ETag").unwrap().to_owned();
    assert_eq!(tag, format!("\"{}\"", made.json().unwrap()["rev"]));
    let leader = cluster.leader().await.unwrap();
    for id in cluster.ids() {
        let user = format!("/v1/users/guest-{id}");
        let guest = json!({ "user": format!("guest-{id}") });
        let calls = [
            (Call::get("/v1/users/ann"), 200),
            (Call::get("/v1/users/ann").header("If-None-Match", &tag), 304),
            (Call::get("/v1/users"), 200),
            (Call::get("/v1/rooms/hall"), 200),
            (Call::get("/v1/rooms/hall/members"), 200),
            (Call::get("/v1/rooms/nowhere"), 404),
            (Call::get("/v1/users").as_user("nobody"), 401),
            (Call::post("/v1/users", &guest), 201),
            (Call::post("/v1/users", &guest), 409),
            (Call::new(Method::DELETE, &user), 204),
            (Call::new(Method::DELETE, &user), 404),
            (Call::get("/v1/cluster"), 200),
            (Call::get("/livez"), 200),
            (Call::get("/readyz"), 200),
            (Call::get("/metrics"), 200),
            (Call::get("/leader"), if id == leader { 200 } else { 503 }),
            (Call::get("/v1/rooms/hall?level=strong"), 400),
            (Call::get("/v1/nothing"), 404),
            (Call::new(Method::PUT, "/v1/users"), 405),
            (
                Call::new(Method::POST, "/v1/users").raw("text/plain", b"{}".to_vec()),
                415,
            ),
        ];
        for (number, (call, status)) in calls.into_iter().enumerate() {
            let request_id = format!("request-{number}");
            let call = call.header("X-Request-Id", &request_id);
            let answer = cluster.expect(id, call, status).await.unwrap();
            every_header(&answer, id, leader);
            assert_eq!(answer.header("X-Request-Id"), Some(request_id.as_str()), "{answer}");
        }
        // A caller that names its request not at all gets a name for it.
        let one = cluster.expect(id, Call::get("/livez"), 200).await.unwrap();
        let other = cluster.expect(id, Call::get("/livez"), 200).await.unwrap();
        assert_ne!(one.header("X-Request-Id"), other.header("X-Request-Id"));
    }
}

#[track_caller]
fn every_header(answer: &Answer, node: u64, leader: u64) {
    assert_eq!(
        answer.header("X-Quorate-Node"),
        Some(node.to_string().as_str()),
        "{answer}"
    );
    assert_eq!(
        answer.header("X-Quorate-Leader"),
        Some(leader.to_string().as_str()),
        "{answer}"
    );
    let term = answer
        .header("X-Quorate-Term")
        .and_then(|term| term.parse::<u64>().ok());
    assert!(term.is_some_and(|term| term > 0), "{term:?}: {answer}");
    let position = answer.header("X-Quorate-Position");
    assert!(position.is_some_and(|position| !position.is_empty()), "{answer}");
    assert!(
        answer.header("X-Request-Id").is_some_and(|id| !id.is_empty()),
        "{answer}"
    );
}
