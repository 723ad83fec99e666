//! The whole table of the contract's errors: every code at every route that may give it, and nothing that was
//! refused has changed anything. One test a code; which cells there are, `/openapi.json` says, so that none is
//! forgotten (`every_cell_of_the_document_is_in_the_table`).
//!
//! `sound.txt` has a request of each route in which nothing is wrong, `every_route` puts what any route
//! refuses into it, `rows.txt` has what a route refuses for reasons of its own. `order` is about requests in
//! which two things are wrong.

mod bench;
mod case;
mod every_route;
mod order;
mod remembered;
mod route;
mod world;

use std::collections::BTreeSet;

use axum::body::Body;
use quorate_api::ApiConfig;
use quorate_api::replica::Replica;
use quorate_state_machine::MemoryView;
use quorate_state_machine::keys::Key;
use serde_json::Value;
use tower::ServiceExt;

use crate::caller::{Node, Reply};
use crate::contract;
use bench::Bench;
use case::{Case, Fault, parse};
use route::{Route, routes};
use world::{World, world};

/// A test of each code: name, status, code, and whether the same request may succeed later.
macro_rules! codes {
    ($($test:ident: $status:literal $code:literal $retryable:literal,)*) => {
        const CODES: &[(u16, &str, bool)] = &[$(($status, $code, $retryable)),*];
        $(
            #[tokio::test]
            async fn $test() {
                every_cell($status, $code).await;
            }
        )*
    };
}

codes! {
    not_found: 404 "not_found" false,
    method_not_allowed: 405 "method_not_allowed" false,
    unsupported_media_type: 415 "unsupported_media_type" false,
    too_large: 413 "too_large" false,
    bad_request: 400 "bad_request" false,
    a_body_that_does_not_come: 408 "bad_request" true,
    unauthenticated: 401 "unauthenticated" false,
    idempotency_mismatch: 422 "idempotency_mismatch" false,
    forbidden: 403 "forbidden" false,
    not_a_member: 403 "not_a_member" false,
    precondition_failed: 412 "precondition_failed" false,
    lock_lost: 412 "lock_lost" false,
    already_exists: 409 "already_exists" false,
    lock_held: 409 "lock_held" true,
    conflict: 409 "conflict" false,
    invalid: 422 "invalid" false,
    position_expired: 410 "position_expired" false,
    rate_limited: 429 "rate_limited" true,
    overloaded: 429 "overloaded" true,
    no_leader: 503 "no_leader" true,
    not_ready: 503 "not_ready" true,
    shutting_down: 503 "shutting_down" true,
    commit_unknown: 504 "commit_unknown" true,
    disk_full: 507 "disk_full" true,
}

/// Behind any route's path, it leads to none.
const NOWHERE: &str = "/nothing/at/all";

/// Codes that no request can bring about here.
const ABSENT: [(&str, &str); 2] = [
    (
        "banned",
        "nobody can be banned yet: the code is kept for when that is built",
    ),
    (
        "internal",
        "a defect; `errors::a_panic_is_a_500_and_the_node_goes_on` makes one",
    ),
];

/// Cells that the document has and that stay empty. It gives the same errors to all routes under a room, and
/// the same to all with something in their path.
fn stays_empty(route: &Route, code: &str) -> Option<&'static str> {
    if let Some((_, why)) = ABSENT.iter().find(|(absent, _)| *absent == code) {
        return Some(why);
    }
    match (route.method.as_str(), route.pattern, code) {
        ("GET", pattern, "forbidden") if pattern.contains("{room}") => Some("who may not read is not_a_member"),
        ("POST", "/v1/rooms/{room}/messages", "forbidden") => Some("who may not send is not_a_member"),
        ("PUT", "/v1/rooms/{room}/members/{user}", "invalid") => Some("the user is in the path, where it is 404"),
        ("PUT", "/v1/locks/{lock}", "not_found") => Some("a lock that is not there is made"),
        ("GET", "/readyz", "shutting_down") => Some("only a server with sockets ends; `sockets` has it"),
        _ => None,
    }
}

async fn cases(world: &World) -> Vec<Case> {
    let mut cases = parse(include_str!("rows.txt"), true, world);
    for route in routes(world).await {
        cases.extend(every_route::cases(&route, world));
    }
    cases
}

async fn every_cell(status: u16, code: &str) {
    let world = world().await;
    let bench = Bench::new(world);
    let mut cases = cases(world).await;
    cases.retain(|case| (case.status, case.code) == (status, code));
    assert!(!cases.is_empty(), "the table has no row {status} {code}");
    for case in cases {
        bench.refuses(&case).await;
    }
}

/// Nothing is another, byte for byte. What is, is named: all of it would fill screens.
fn unchanged(case: &Case, before: &MemoryView, after: &MemoryView) {
    if before == after {
        return;
    }
    let pairs = |state: &MemoryView| -> BTreeSet<(Vec<u8>, Vec<u8>)> {
        state
            .iter()
            .map(|(key, value)| (key.to_vec(), value.to_vec()))
            .collect()
    };
    let (before, after) = (pairs(before), pairs(after));
    let changed = before.symmetric_difference(&after).map(|(key, _)| Key::decode(key));
    panic!("{case}: it has changed {:?}", changed.collect::<Vec<_>>());
}

/// The refusal is the one that was expected, in the contract's form, with every header that answers have.
fn check(case: &Case, node: &Node, reply: &Reply) {
    let Case { status, code, says, .. } = case;
    let (status, code) = (*status, *code);
    let text = String::from_utf8_lossy(&reply.body);
    assert_eq!(reply.status, status, "{case}: {text}");
    assert_eq!(reply.header("content-type"), "application/problem+json", "{case}");
    let problem: Value = serde_json::from_slice(&reply.body).unwrap_or_else(|_| panic!("{case}: {text}"));
    let (_, _, retryable) = CODES.iter().find(|row| (row.0, row.1) == (status, code)).unwrap();
    for (member, expected) in [
        ("type", Value::from(format!("urn:quorate:problem:{code}"))),
        ("status", status.into()),
        ("code", code.into()),
        ("request_id", "row".into()),
        ("retryable", (*retryable).into()),
        (
            "outcome",
            if code == "commit_unknown" {
                "unknown"
            } else {
                "not_applied"
            }
            .into(),
        ),
    ] {
        assert_eq!(problem[member], expected, "{case}: {member} of {problem}");
    }
    for member in ["title", "detail"] {
        let said = problem[member].as_str().is_some_and(|text| !text.is_empty());
        assert!(said, "{case}: no {member} in {problem}");
    }
    let detail = problem["detail"].as_str().unwrap().to_ascii_lowercase();
    assert!(detail.contains(says), "{case}: {detail:?} does not say {says:?}");
    let more = |member| problem.get(member).is_some();
    assert_eq!(
        (more("holders"), more("queue")),
        (code == "lock_held", code == "lock_held"),
        "{case}"
    );
    let is_read = case.ask.method == "GET" && case.ask.path().starts_with("/v1/rooms");
    if is_read {
        assert_eq!(more("oldest"), code == "position_expired", "{case}: {problem}");
    }

    let is_route = case.ask.path().starts_with("/v1/") || case.ask.path().starts_with("/api/");
    let level = match case.ask.target.split_once("level=") {
        _ if !is_route || case.ask.method != "GET" || case.ask.path().ends_with(NOWHERE) => "",
        None => "linearizable",
        Some((_, "local")) => "local",
        Some(_) => "",
    };
    let state = node.replica.status();
    let leader = state.leader.map_or(String::new(), |leader| leader.to_string());
    for (name, expected) in [
        ("x-request-id", "row"),
        ("x-quorate-node", "1"),
        ("x-quorate-leader", &leader),
        ("x-quorate-term", "7"),
        ("x-quorate-position", &state.position.to_string()),
        ("x-quorate-level", level),
        ("cache-control", "no-store"),
        ("retry-after", if matches!(status, 429 | 503) { "1" } else { "" }),
        ("www-authenticate", if status == 401 { "Bearer" } else { "" }),
        ("idempotency-replayed", ""),
        ("etag", ""),
        ("location", ""),
        ("link", ""),
    ] {
        assert_eq!(reply.header(name), expected, "{case}: {name}");
    }
    let allow = reply.headers.contains_key("allow");
    assert_eq!(allow, status == 405, "{case}: Allow");
}

/// If it were refused anyway, a fault that is put into it would show nothing.
#[tokio::test]
async fn a_sound_request_is_not_refused() {
    let world = world().await;
    for route in routes(world).await {
        let node = world.node(ApiConfig::default());
        node.replica.admin.lock().unwrap().verification = Some(quorate_api::replica::Verification {
            index: 7,
            revision: 3,
            nodes: Vec::new(),
        });
        // The body is left alone: a stream has no end.
        let request = route.sound.to_request(false);
        let response: http::Response<Body> = node.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), route.status, "{} {}", route.method, route.pattern);
    }
}

/// With no body, which would else say it.
#[tokio::test]
async fn a_head_is_refused_like_a_get() {
    let world = world().await;
    let node = world.node(ApiConfig::default());
    let before = node.replica.state();
    for mut case in cases(world).await {
        if case.ask.method != "GET" || !matches!(case.fault, Fault::Nothing) {
            continue;
        }
        case.ask.method = "HEAD".to_owned();
        let reply = node.call(case.ask.to_request(false)).await;
        assert_eq!((reply.status.as_u16(), reply.body.len()), (case.status, 0), "{case}");
        assert_eq!(reply.header("content-type"), "application/problem+json", "{case}");
        unchanged(&case, &before, &node.replica.state());
    }
}

#[tokio::test]
async fn every_cell_of_the_document_is_in_the_table() {
    let world = world().await;
    let document = contract::document().await;
    let covered: BTreeSet<(String, &str, u16, &str)> = cases(world)
        .await
        .into_iter()
        .filter_map(|case| {
            let (route, _) = contract::route_of(document, &case.ask.target)?;
            Some((case.ask.method, route, case.status, case.code))
        })
        .collect();
    let mut missing = Vec::new();
    for route in routes(world).await {
        for (status, code) in &route.errors {
            let there = covered.contains(&(route.method.clone(), route.pattern, *status, *code));
            let cell = format!("{} {}: {status} {code}", route.method, route.pattern);
            match (there, stays_empty(&route, code)) {
                (true, None) | (false, Some(_)) => {}
                (true, Some(why)) => panic!("{cell} is there, although {why}"),
                (false, None) => missing.push(cell),
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[tokio::test]
async fn every_code_has_a_test() {
    let document = contract::document().await;
    let all = document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"].as_array();
    let all: BTreeSet<&str> = all.unwrap().iter().map(|code| code.as_str().unwrap()).collect();
    let tested = CODES.iter().map(|(_, code, _)| *code);
    let absent = ABSENT.iter().map(|(code, _)| *code);
    assert_eq!(tested.chain(absent).collect::<BTreeSet<_>>(), all);
}
