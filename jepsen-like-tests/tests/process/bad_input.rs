//! Whatever a caller sends, it gets the documented code as problem+json, nothing changes, and the
//! node goes on.

use quorate_torture::cluster::Cluster;
use quorate_torture::http::{Answer, Call};
use reqwest::Method;
use serde_json::{Value, json};

/// One mistake and what the contract says to it.
struct Case {
    what: String,
    call: Call,
    status: u16,
    code: &'static str,
}

fn case(what: &str, call: Call, status: u16, code: &'static str) -> Case {
    Case {
        what: what.to_owned(),
        call,
        status,
        code,
    }
}

const USERS: &str = "/v1/users";
const ROOMS: &str = "/v1/rooms";
const HALL: &str = "/v1/rooms/hall/messages";
const BATCH: &str = "/v1/rooms/hall/messages/batch";
const JSON: &str = "application/json";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_mistake_gets_its_code_and_changes_nothing() {
    let cluster = Cluster::options().start().await.unwrap();
    // ann talks in the hall, which is public, and in the den, where bob is a stranger.
    for user in ["ann", "bob"] {
        cluster.create_user(1, user).await.unwrap();
    }
    cluster.create_room(1, "hall").await.unwrap();
    let den = json!({ "room": "den", "kind": "group", "members": ["ann"] });
    cluster.expect(1, Call::post(ROOMS, &den), 201).await.unwrap();
    for path in [HALL, "/v1/rooms/den/messages"] {
        cluster
            .expect(1, Call::post(path, &json!({ "text": "first" })).as_user("ann"), 201)
            .await
            .unwrap();
    }
    let leader = cluster.leader().await.unwrap();
    let follower = cluster.others(leader)[0];
    // Its rise is a change as well, and not one that a mistake has made.
    cluster.wait_version(crate::CLUSTER_VERSION).await.unwrap();
    let before = store(&cluster, leader).await;

    for (
        number,
        Case {
            what,
            call,
            status,
            code,
        },
    ) in every_case().into_iter().enumerate()
    {
        // A mistake is a mistake wherever it is made.
        for node in [leader, follower] {
            let request_id = format!("mistake-{number}");
            let answer = cluster
                .send(node, call.clone().header("X-Request-Id", &request_id))
                .await;
            let answer = answer.unwrap_or_else(|error| panic!("{what} on node {node}: {error}"));
            assert_problem(&answer, status, code, &format!("{what} on node {node}"));
            assert_eq!(answer.header("X-Request-Id"), Some(request_id.as_str()), "{what}");
        }
        let after = store(&cluster, follower).await;
        assert_eq!(after, before, "{what} changed something");
    }
    for id in cluster.ids() {
        assert!(cluster.node(id).process().runs());
        cluster.wait_writable(id, "hall").await.unwrap();
    }
}

/// What can be seen of the store, and the position of all that was ever applied.
async fn store(cluster: &Cluster, node: u64) -> (String, Vec<Value>) {
    let mut seen = Vec::new();
    let mut position = String::new();
    for path in [ROOMS, USERS, HALL, "/v1/rooms/den/messages", "/v1/rooms/hall/members"] {
        let answer = cluster.expect(node, Call::get(path), 200).await.unwrap();
        position = answer.position().unwrap();
        seen.push(answer.json().unwrap());
    }
    (position, seen)
}

#[track_caller]
fn assert_problem(answer: &Answer, status: u16, code: &str, what: &str) {
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (status, code),
        "{what}: {answer}"
    );
    let media_type = answer.header("Content-Type").unwrap_or_default();
    assert!(
        media_type.starts_with("application/problem+json"),
        "{what}: {media_type}"
    );
    let problem = answer.json().unwrap();
    assert_eq!(problem["status"], status, "{what}");
    for field in ["type", "title", "detail"] {
        assert!(
            problem[field].as_str().is_some_and(|text| !text.is_empty()),
            "{what}: no {field} in {problem}"
        );
    }
    assert_eq!(problem["outcome"], "not_applied", "{what}");
    assert_eq!(problem["retryable"], false, "{what}: the same request cannot do better");
    assert_eq!(problem["request_id"].as_str(), answer.header("X-Request-Id"), "{what}");
}

fn every_case() -> Vec<Case> {
    [
        bodies(),
        names(),
        sizes(),
        numbers(),
        unknown_things(),
        strangers(),
        headers(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Bodies that are not what the route takes.
fn bodies() -> Vec<Case> {
    let raw = |path: &str, body: &[u8]| Call::new(Method::POST, path).raw(JSON, body.to_vec());
    let user = |body: Value| Call::post(USERS, &body);
    let send = |body: Value| Call::post(HALL, &body);
    let batch = |messages: Value| Call::post(BATCH, &json!({ "messages": messages }));
    let bad = |what: &str, call| case(what, call, 400, "bad_request");
    vec![
        bad("broken JSON", raw(USERS, br#"{"user": "x""#)),
        bad("JSON and something after it", raw(USERS, br#"{"user": "x"} y"#)),
        bad("no body", raw(USERS, b"")),
        bad("a user's body that is not UTF-8", raw(USERS, b"{\"user\": \"x\xff\"}")),
        bad("a text that is not UTF-8", raw(HALL, b"{\"text\": \"\xc3\x28\"}")),
        bad("half a surrogate pair", raw(HALL, br#"{"text": "\ud800"}"#)),
        bad("a field twice", raw(HALL, br#"{"text": "a", "text": "b"}"#)),
        bad("an unknown field of a user", user(json!({ "user": "x", "nick": "y" }))),
        bad(
            "an unknown field of a message",
            send(json!({ "text": "x", "colour": "red" })),
        ),
        bad(
            "an unknown field in a batch",
            batch(json!([{ "text": "x" }, { "text": "y", "colour": "red" }])),
        ),
        bad(
            "a field of imports outside of a batch",
            send(json!({ "text": "x", "sender": "ann" })),
        ),
        bad("a number as a name", user(json!({ "user": 7 }))),
        bad("a list as a user", user(json!([]))),
        bad("a number as a text", send(json!({ "text": 7 }))),
        bad("a text as reply_to", send(json!({ "text": "x", "reply_to": "1" }))),
        bad("a fraction as reply_to", send(json!({ "text": "x", "reply_to": 1.5 }))),
        bad("a text as attributes", send(json!({ "text": "x", "attributes": "y" }))),
        bad("a missing user", user(json!({}))),
        bad("a missing text", send(json!({}))),
        bad("a missing kind", Call::post(ROOMS, &json!({ "room": "x" }))),
        bad(
            "an unknown kind of room",
            Call::post(ROOMS, &json!({ "room": "x", "kind": "secret" })),
        ),
        bad(
            "an unknown role",
            Call::put("/v1/rooms/hall/members/ann", &json!({ "role": "king" })),
        ),
        bad("messages that are no list", batch(json!("x"))),
        bad("an empty client_id", send(json!({ "text": "x", "client_id": "" }))),
        bad(
            "a client_id of 129 bytes",
            send(json!({ "text": "x", "client_id": "c".repeat(129) })),
        ),
        case(
            "plain text",
            Call::new(Method::POST, HALL).raw("text/plain", b"hi".to_vec()),
            415,
            "unsupported_media_type",
        ),
        case(
            "XML",
            Call::new(Method::POST, USERS).raw("text/xml", b"<user/>".to_vec()),
            415,
            "unsupported_media_type",
        ),
        case(
            "a form",
            Call::new(Method::POST, USERS).raw("application/x-www-form-urlencoded", b"user=x".to_vec()),
            415,
            "unsupported_media_type",
        ),
    ]
}

/// Names that are none, in bodies and in paths.
fn names() -> Vec<Case> {
    let long = "n".repeat(129);
    let decomposed = "e\u{301}";
    let in_bodies = [
        "",
        " ",
        "a b",
        "a/b",
        "a\tb",
        "a\nb",
        "a\0",
        "a\u{7f}",
        "a\u{85}b",
        "a\u{a0}b",
        "a\u{3000}b",
        decomposed,
        &long,
    ];
    let mut cases: Vec<Case> = in_bodies
        .iter()
        .flat_map(|name| {
            let user = Call::post(USERS, &json!({ "user": name }));
            let room = Call::post(ROOMS, &json!({ "room": name, "kind": "public" }));
            [
                case(&format!("the user's name {name:?}"), user, 400, "bad_request"),
                case(&format!("the room's name {name:?}"), room, 400, "bad_request"),
            ]
        })
        .collect();
    for path in [
        "/v1/users/a%20b",
        "/v1/users/a%2Fb",
        "/v1/users/%FF",
        "/v1/rooms/e%CC%81",
        "/v1/rooms/%00/messages",
    ] {
        cases.push(case(path, Call::get(path), 400, "bad_request"));
    }
    let path = format!("/v1/users/{long}");
    cases.push(case(
        "a name of 129 bytes in a path",
        Call::get(path),
        400,
        "bad_request",
    ));
    cases
}

/// One more than the contract allows.
fn sizes() -> Vec<Case> {
    let text = "t".repeat((64 << 10) + 1);
    // 21,846 characters of three bytes: fewer characters than 64 KiB, but more bytes.
    let wide = "字".repeat(21_846);
    let filler = br#"{"text": ""}"#.len();
    let body = format!(r#"{{"text": "{}"}}"#, "t".repeat((4 << 20) + 1 - filler));
    assert_eq!(body.len(), (4 << 20) + 1);
    let batch = |count: usize| {
        let messages: Vec<Value> = (0..count)
            .map(|number| json!({ "text": format!("b{number}") }))
            .collect();
        Call::post(BATCH, &json!({ "messages": messages }))
    };
    let one_too_long = json!({ "messages": [{ "text": "fits" }, { "text": text }] });
    vec![
        case(
            "a text of 64 KiB and 1 byte",
            Call::post(HALL, &json!({ "text": text })),
            413,
            "too_large",
        ),
        case(
            "a text of too many bytes in few characters",
            Call::post(HALL, &json!({ "text": wide })),
            413,
            "too_large",
        ),
        case(
            "a body of 4 MiB and 1 byte",
            Call::new(Method::POST, HALL).raw(JSON, body.into_bytes()),
            413,
            "too_large",
        ),
        case("a batch of none", batch(0), 400, "bad_request"),
        case("a batch of 1001", batch(1001), 413, "too_large"),
        case(
            "a batch with one text too long",
            Call::post(BATCH, &one_too_long),
            413,
            "too_large",
        ),
    ]
}

/// Limits, seqs and positions that are none.
fn numbers() -> Vec<Case> {
    let mut cases = Vec::new();
    for path in [HALL, USERS, ROOMS, "/v1/rooms/hall/members"] {
        for limit in ["-1", "0", "501", "ten", "", "1.5", "99999999999999999999"] {
            let path = format!("{path}?limit={limit}");
            cases.push(case(&path, Call::get(&path), 400, "bad_request"));
        }
    }
    for query in [
        "after=x",
        "before=-1",
        "around=1.5",
        "at=yesterday",
        "after=1&before=2",
        "around=1&at=2020-01-01T00:00:00.000Z",
    ] {
        let path = format!("{HALL}?{query}");
        cases.push(case(&path, Call::get(&path), 400, "bad_request"));
    }
    for seq in ["0", "2", "9007199254740991"] {
        let path = format!("{HALL}/{seq}");
        cases.push(case(&path, Call::get(&path), 404, "not_found"));
    }
    cases.push(case(
        "a seq that is a word",
        Call::get(format!("{HALL}/one")),
        400,
        "bad_request",
    ));
    cases.push(case(
        "a page of a cursor nobody gave",
        Call::get(format!("{USERS}?cursor=%00")),
        400,
        "bad_request",
    ));
    cases
}

fn unknown_things() -> Vec<Case> {
    let hi = json!({ "text": "hi" });
    let reply = json!({ "text": "hi", "reply_to": 99 });
    let with_stranger = json!({ "room": "x", "kind": "group", "members": ["nobody"] });
    let by_stranger = json!({ "messages": [{ "text": "hi", "sender": "nobody" }] });
    let method = |name: &str| Method::from_bytes(name.as_bytes()).unwrap();
    vec![
        case(
            "an unknown level",
            Call::get(format!("{HALL}?level=eventual")),
            400,
            "bad_request",
        ),
        case(
            "an empty level",
            Call::get(format!("{ROOMS}?level=")),
            400,
            "bad_request",
        ),
        case(
            "reading an unknown room",
            Call::get("/v1/rooms/nowhere/messages"),
            404,
            "not_found",
        ),
        case(
            "sending to an unknown room",
            Call::post("/v1/rooms/nowhere/messages", &hi),
            404,
            "not_found",
        ),
        case(
            "streaming an unknown room",
            Call::get("/v1/rooms/nowhere/stream"),
            404,
            "not_found",
        ),
        case("an unknown room", Call::get("/v1/rooms/nowhere"), 404, "not_found"),
        case("an unknown user", Call::get("/v1/users/nobody"), 404, "not_found"),
        case(
            "an unknown user as a member",
            Call::put("/v1/rooms/hall/members/nobody", &json!({ "role": "member" })),
            404,
            "not_found",
        ),
        case(
            "deleting an unknown user",
            Call::new(Method::DELETE, "/v1/users/nobody"),
            404,
            "not_found",
        ),
        case(
            "an unknown user in a body",
            Call::post(ROOMS, &with_stranger),
            422,
            "invalid",
        ),
        case(
            "an unknown sender in a batch",
            Call::post(BATCH, &by_stranger),
            422,
            "invalid",
        ),
        case("a reply to nothing", Call::post(HALL, &reply), 422, "invalid"),
        case(
            "an unknown caller reads",
            Call::get(HALL).as_user("nobody"),
            401,
            "unauthenticated",
        ),
        case(
            "an unknown caller sends",
            Call::post(HALL, &hi).as_user("nobody"),
            401,
            "unauthenticated",
        ),
        case(
            "a bad token",
            Call::get(HALL).header("Authorization", "Bearer x"),
            401,
            "unauthenticated",
        ),
        case(
            "a user that exists",
            Call::post(USERS, &json!({ "user": "ann" })),
            409,
            "already_exists",
        ),
        case(
            "a room that exists",
            Call::post(ROOMS, &json!({ "room": "hall", "kind": "group" })),
            409,
            "already_exists",
        ),
        case(
            "a method that the route has not",
            Call::put(USERS, &json!({})),
            405,
            "method_not_allowed",
        ),
        case(
            "a method that nobody has",
            Call::new(method("BREW"), HALL),
            405,
            "method_not_allowed",
        ),
        case("an unknown route", Call::get("/v1/nothing"), 404, "not_found"),
        case(
            "an unknown route, written to",
            Call::post("/v2/users", &json!({ "user": "x" })),
            404,
            "not_found",
        ),
    ]
}

/// bob is no member of the den.
fn strangers() -> Vec<Case> {
    let path = |rest: &str| format!("/v1/rooms/den{rest}");
    let calls = [
        ("reads the room", Call::get(path(""))),
        ("reads messages", Call::get(path("/messages"))),
        ("reads messages locally", Call::get(path("/messages?level=local"))),
        ("reads a message", Call::get(path("/messages/1"))),
        ("reads members", Call::get(path("/members"))),
        ("reads the stream", Call::get(path("/stream"))),
        ("sends", Call::post(path("/messages"), &json!({ "text": "hi" }))),
        (
            "sends a batch",
            Call::post(path("/messages/batch"), &json!({ "messages": [{ "text": "hi" }] })),
        ),
        (
            "adds himself",
            Call::put(path("/members/bob"), &json!({ "role": "member" })),
        ),
    ];
    let stranger =
        |(what, call): (&str, Call)| case(&format!("a stranger {what}"), call.as_user("bob"), 403, "not_a_member");
    let mut cases: Vec<Case> = calls.into_iter().map(stranger).collect();
    let as_ann = json!({ "messages": [{ "text": "hi", "sender": "ann" }] });
    cases.push(case(
        "a user sends as another",
        Call::post(BATCH, &as_ann).as_user("bob"),
        403,
        "forbidden",
    ));
    cases
}

/// Headers that do not parse, and conditions that do not hold.
fn headers() -> Vec<Case> {
    let send = || Call::post(HALL, &json!({ "text": "hi" }));
    let patch = || Call::new(Method::PATCH, "/v1/users/ann").json(&json!({ "display_name": "Ann" }));
    let bad = |what: &str, call| case(what, call, 400, "bad_request");
    vec![
        bad("a time-out that is a word", send().header("Request-Timeout-Ms", "soon")),
        bad(
            "a time-out of more than a minute",
            send().header("Request-Timeout-Ms", "60001"),
        ),
        bad(
            "a position that nobody gave",
            Call::get(HALL).header("X-Quorate-Min-Position", "banana"),
        ),
        bad(
            "an event that nobody sent",
            Call::get("/v1/rooms/hall/stream").header("Last-Event-ID", "banana"),
        ),
        bad("a key of 129 bytes", send().key(&"k".repeat(129))),
        bad("an empty key", send().key("")),
        bad(
            "a caller's name that is none",
            Call::get(HALL).header("X-Quorate-User", "a%20b"),
        ),
        bad("an If-Match that is no tag", patch().header("If-Match", "7")),
        bad("an If-Lock without a token", send().header("If-Lock", "deploy")),
        case(
            "an If-Match of another revision",
            patch().header("If-Match", "\"9999\""),
            412,
            "precondition_failed",
        ),
        case(
            "an If-Lock of no lock",
            send().header("If-Lock", "deploy;token=1"),
            412,
            "lock_lost",
        ),
    ]
}

/// The bounds themselves are inside.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_just_fits_is_taken() {
    let cluster = Cluster::options().start().await.unwrap();
    cluster.create_room(1, "hall").await.unwrap();
    cluster.create_user(2, &"n".repeat(128)).await.unwrap();
    let text = "t".repeat(64 << 10);
    cluster
        .expect(1, Call::post(HALL, &json!({ "text": text })), 201)
        .await
        .unwrap();
    cluster
        .expect(2, Call::post(HALL, &json!({ "text": "" })), 201)
        .await
        .unwrap();
    cluster
        .expect(3, Call::post(HALL, &json!({ "text": "\u{0}\u{7}\n\u{1b}" })), 201)
        .await
        .unwrap();
    let messages: Vec<Value> = (0..1000)
        .map(|number| json!({ "text": format!("b{number}") }))
        .collect();
    let sent = cluster
        .expect(2, Call::post(BATCH, &json!({ "messages": messages })), 201)
        .await
        .unwrap();
    let sent = sent.json().unwrap();
    assert_eq!(
        (sent["first_seq"].as_u64(), sent["last_seq"].as_u64()),
        (Some(4), Some(1003))
    );
    // 63 texts of 64 KiB are less than 4 MiB together.
    let messages = vec![json!({ "text": text }); 63];
    cluster
        .expect(3, Call::post(BATCH, &json!({ "messages": messages })), 201)
        .await
        .unwrap();
    for (limit, count) in [(1, 1), (500, 500)] {
        let page = cluster
            .expect(1, Call::get(format!("{HALL}?after=1&limit={limit}")), 200)
            .await
            .unwrap();
        assert_eq!(page.json().unwrap()["messages"].as_array().unwrap().len(), count);
    }
    let beyond = cluster
        .expect(2, Call::get(format!("{HALL}?after=5000")), 200)
        .await
        .unwrap()
        .json()
        .unwrap();
    assert_eq!(beyond["messages"], json!([]));
    assert_eq!(
        (beyond["first_seq"].as_u64(), beyond["last_seq"].as_u64()),
        (Some(0), Some(0))
    );
}
