//! What any route refuses, put into its sound request: made from what the document says of the route, so that
//! a new parameter, header or field is asked about without anybody thinking of it.

use quorate_api::replica::{AdminError, RaftState, ReplicaError};
use serde_json::{Map, Value, json};

use super::NOWHERE;
use super::case::{Ask, Case, Fault};
use super::route::Route;
use super::world::{USED, World};

/// Of a position that belongs to another epoch.
const EXPIRED: &str = "77.1.1";

pub(super) fn cases(route: &Route, world: &World) -> Vec<Case> {
    let mut cases = no_route(route);
    cases.extend(query(route));
    cases.extend(path(route));
    cases.extend(headers(route, world));
    if route.body.is_some() {
        cases.extend(body(route));
    }
    if !route.is_probe() {
        cases.extend(caller(route, world));
        cases.extend(node(route));
    }
    if !route.is_read() {
        cases.extend(size(route));
    }
    if route.is_logged() {
        cases.extend(conditions(route, world));
    }
    cases.extend(replica(route));
    cases
}

fn bad(ask: Ask) -> Case {
    Case::new(400, "bad_request", ask)
}

fn no_route(route: &Route) -> Vec<Case> {
    let nowhere = format!("{}{NOWHERE}", route.sound.path());
    let frob = Ask {
        method: "FROB".to_owned(),
        ..route.sound.clone()
    };
    vec![
        Case::new(404, "not_found", route.sound.clone().to(nowhere)),
        Case::new(405, "method_not_allowed", frob),
    ]
}

fn query(route: &Route) -> Vec<Case> {
    let sound = &route.sound;
    let mut cases = vec![bad(sound.clone().query("nonsense=1")).saying("nonsense")];
    cases.push(bad(sound.clone().query("%zz=1")));
    for (_, name) in route.parameters.iter().filter(|(place, _)| *place == "query") {
        let values: &[&str] = match *name {
            "level" => &["strong", "", "Local"],
            "redirect" | "verbose" => &["yes", "1"],
            "limit" => &["0", "501", "-1", "ten", "1.0", ""],
            "cursor" => &["x", "", "u", "zz"],
            "after" | "before" | "around" | "token" => &["x", "-1", "1.5", ""],
            "at" => &["yesterday", "2026-01-01", ""],
            other => panic!("the table has no bad value of {other}"),
        };
        // Where the sound request has it, it is there instead.
        let bare = match sound.target.contains(&format!("{name}=")) {
            true => sound.clone().to(sound.path().to_owned()),
            false => sound.clone(),
        };
        let pairs = values.iter().map(|value| format!("{name}={value}"));
        cases.extend(pairs.map(|pair| bad(bare.clone().query(&pair))));
        let twice = bare.query(&format!("{name}=1")).query(&format!("{name}=1"));
        cases.push(bad(twice).saying("twice"));
    }
    cases
}

fn path(route: &Route) -> Vec<Case> {
    let long = "x".repeat(129);
    let names = ["%zz", "%ff", "a%20b", "a%2Fb", "e%CC%81", &long];
    let segments: Vec<&str> = route.sound.path().split('/').collect();
    let mut cases = Vec::new();
    for (n, segment) in route.pattern.split('/').enumerate() {
        let values: &[&str] = match segment {
            "{user}" | "{room}" | "{lock}" => &names,
            "{seq}" | "{id}" => &["one", "-1", "1.5", "%31"],
            fixed => {
                assert!(!fixed.starts_with('{'), "the table has no bad value of {fixed}");
                continue;
            }
        };
        for value in values {
            let mut bad_one = segments.clone();
            bad_one[n] = value;
            let target = route.sound.target.replacen(route.sound.path(), &bad_one.join("/"), 1);
            cases.push(bad(route.sound.clone().to(target)));
        }
    }
    cases
}

/// Whether the route has a use for the header or not: one that does not parse is never ignored.
fn headers(route: &Route, world: &World) -> Vec<Case> {
    let long = "k".repeat(129);
    let mut all: Vec<(&str, Vec<&str>)> = Vec::new();
    if !route.is_probe() {
        all.extend([
            ("idempotency-key", vec!["", "a b", &long]),
            ("if-match", vec!["7", "W/\"7\"", "*", "\"7\", \"8\""]),
            ("if-lock", vec!["a", "a;token=x", "a b;token=1", ";token=1"]),
            ("request-timeout-ms", vec!["soon", "0", "60001", "1.5", ""]),
            ("x-quorate-min-position", vec!["x", "1", ""]),
            ("x-quorate-user", vec!["%", "a%20b", "a%2Fb", ""]),
        ]);
        if !route.is_read() {
            all.push(("if-none-match", vec!["\"7\"", "x"]));
        }
    }
    for (_, name) in route.parameters.iter().filter(|(place, _)| *place == "header") {
        match name.to_ascii_lowercase().as_str() {
            "last-event-id" => all.push(("last-event-id", vec!["x", "1", ""])),
            // The node makes one of its own where it is no good.
            "x-request-id" => {}
            // Of a read it is a list, and what is no tag is like none.
            "if-none-match" if route.is_read() => {}
            other => assert!(
                all.iter().any(|(name, _)| *name == other),
                "the table has no bad {other}"
            ),
        }
    }
    let mut cases = Vec::new();
    for (name, values) in all {
        let sound = route.sound.clone();
        cases.extend(
            values
                .iter()
                .map(|value| bad(sound.clone().instead(name, value)).saying(name)),
        );
        let good = if name.contains("position") || name == "last-event-id" {
            "1.0.1"
        } else {
            "1"
        };
        cases.push(bad(sound.without(name).header(name, good).header(name, good)).saying(name));
    }
    if !route.is_probe() {
        let token = format!("Bearer {}", world.session);
        let two = route.sound.clone().with_token(&token).header("x-quorate-user", "ann");
        cases.push(bad(two).saying("x-quorate-user"));
    }
    cases
}

fn body(route: &Route) -> Vec<Case> {
    let sound = &route.sound;
    let whole = sound
        .body
        .clone()
        .expect("the sound request of a route with a body has one");
    let mut cases = Vec::new();
    for broken in ["{", "[]", "null", "\"x\"", "1", "{} {}", "{\"\":\"\\ud800\"}"] {
        cases.push(bad(sound.clone().body(broken)));
    }
    cases.push(bad(sound.clone().body([&b"{\"a\":\"\xff\"}"[..], &whole].concat())));
    if !route.body_optional {
        cases.push(bad(sound.clone().body("")));
    }

    let fields: Map<String, Value> = serde_json::from_slice(&whole).unwrap();
    let with = |name: &str, value: Value| {
        let mut fields = fields.clone();
        fields.insert(name.to_owned(), value);
        sound.clone().body(Value::Object(fields).to_string())
    };
    cases.push(bad(with("nonsense", json!(1))).saying("nonsense"));
    let schema = route.body.unwrap();
    for name in schema["required"].as_array().into_iter().flatten() {
        let name = name.as_str().unwrap();
        let mut fields = fields.clone();
        fields.remove(name).expect("the sound request has what is required");
        cases.push(bad(sound.clone().body(Value::Object(fields).to_string())).saying(name));
    }
    for name in schema["properties"].as_object().into_iter().flat_map(Map::keys) {
        // Of a lock's data every type is right.
        if name != "data" {
            cases.push(bad(with(name, json!([1]))));
        }
        if schema.get("x-merge-patch").is_none() {
            cases.push(bad(with(name, Value::Null)));
        }
    }

    let plain = |value: &str| {
        Case::new(
            415,
            "unsupported_media_type",
            sound.clone().instead("content-type", value),
        )
    };
    cases.push(plain("text/plain"));
    cases.push(plain("application/json; charset=latin1"));
    let no_type = sound.clone().without("content-type");
    cases.push(Case::new(415, "unsupported_media_type", no_type));
    let twice = sound.clone().header("content-type", "application/json");
    cases.push(Case::new(415, "unsupported_media_type", twice));
    let packed = sound.clone().header("content-encoding", "gzip");
    cases.push(Case::new(415, "unsupported_media_type", packed));
    if route.method != "PATCH" {
        cases.push(plain("application/merge-patch+json"));
    }
    cases
}

fn size(route: &Route) -> Vec<Case> {
    let sound = match route.sound.body {
        Some(_) => route.sound.clone(),
        // Read even where it is of no use, because it counts for the key.
        None => route.sound.clone().body("{}"),
    };
    let large = sound.clone().header("content-length", "4194305");
    // Who waits to be asked for his body has sent nothing that would have to be read before the answer.
    let slow = Case::new(408, "bad_request", sound.clone().header("expect", "100-continue"));
    let slow = slow.with(Fault::SlowBody);
    vec![Case::new(413, "too_large", large), slow]
}

fn caller(route: &Route, world: &World) -> Vec<Case> {
    let nobody = |ask| Case::new(401, "unauthenticated", ask);
    let unknown = format!("Bearer qst_{}", "0".repeat(64));
    let ended = format!("Bearer {}", world.ended);
    let tokens = ["Bearer x", "Bearer", "Basic cm9vdDp4", &unknown, &ended];
    let mut cases: Vec<Case> = tokens.map(|token| nobody(route.sound.clone().with_token(token))).into();
    // Nobody has to be somebody to sign in.
    if !route.is_sign_in() {
        cases.extend(["nobody", "root"].map(|user| nobody(route.sound.clone().by(user))));
        let bare = route.sound.clone().without("authorization");
        cases.push(nobody(bare.clone()).with(Fault::Enforced));
        cases.push(nobody(bare.by("ann")).with(Fault::Enforced));
    }
    cases
}

fn node(route: &Route) -> Vec<Case> {
    // Root is not limited, and a session is ann's.
    let limited = match route.sound.headers.iter().any(|(name, _)| name == "authorization") {
        true => route.sound.clone(),
        false => route.sound.clone().by("ann"),
    };
    let mut cases = vec![Case::new(429, "rate_limited", limited).with(Fault::Limited)];
    let mut full = |bound, reach| {
        let case = Case::new(429, "overloaded", route.sound.clone());
        cases.push(case.with(Fault::Bound(bound, reach)));
    };
    full("requests at work", |limits| {
        (limits.reads_max, limits.writes_max, limits.admin_max) = (0, 0, 0);
    });
    if route.sound.body.is_some() {
        full("bodies' bytes", |limits| limits.bodies_bytes_max = 1);
    }
    if route.pattern.ends_with("/stream") {
        full("open streams", |limits| limits.streams_max = 0);
    }
    if route.pattern == "/v1/ws" {
        full("open sockets", |limits| limits.sockets_max = 0);
    }
    if route.pattern == "/v1/locks/{lock}" && route.method == "PUT" {
        let waits = route
            .sound
            .clone()
            .body(r#"{"owner":"o","ttl_ms":1000,"wait_ms":1000}"#);
        let none = Fault::Bound("those who wait", |limits| limits.waits_max = 0);
        cases.push(Case::new(429, "overloaded", waits).with(none));
    }
    cases
}

fn conditions(route: &Route, world: &World) -> Vec<Case> {
    let sound = &route.sound;
    let mut cases = Vec::new();
    let lost = |lock: &str, token: u64| {
        let guard = format!("{lock};token={token}");
        Case::new(412, "lock_lost", sound.clone().header("if-lock", &guard))
    };
    // Another's token, a lock that is free, one whose time is over, and one that never was.
    cases.extend([
        lost("held", 1),
        lost("free", world.held),
        lost("late", world.late),
        lost("never", 1),
    ]);
    let other = sound.clone().header("if-match", "\"999\"");
    cases.push(Case::new(412, "precondition_failed", other));
    // What is created is not there; of that rows.txt has a row each.
    let creates = ["/v1/users", "/api/users", "/v1/sessions", "/v1/rooms"].contains(&route.pattern);
    if !creates {
        let none = sound.clone().header("if-none-match", "*");
        cases.push(Case::new(412, "precondition_failed", none));
    }
    if route.takes_keys() {
        let used = sound.clone().header("idempotency-key", USED);
        cases.push(Case::new(422, "idempotency_mismatch", used));
    }
    cases
}

/// The replica does not answer, or not as it should.
fn replica(route: &Route) -> Vec<Case> {
    let mut cases = Vec::new();
    let unknown = || ReplicaError::CommitUnknown("the leader is gone".to_owned());
    let errors = [
        (503, "no_leader", ReplicaError::NoLeader),
        (503, "not_ready", ReplicaError::NotReady("starting".to_owned())),
        (503, "shutting_down", ReplicaError::ShuttingDown),
        (429, "overloaded", ReplicaError::Overloaded("the queue".to_owned())),
    ];
    // A read has no outcome that could be unknown, and needs no room on the disk.
    let of_reads = [(503, "not_ready", unknown())];
    let of_writes = [
        (504, "commit_unknown", unknown()),
        (507, "disk_full", ReplicaError::DiskFull),
    ];
    let rest = if route.is_read() { &of_reads[..] } else { &of_writes };
    let expired = [(410, "position_expired", ReplicaError::PositionExpired)];
    let expired = if route.takes_positions() { &expired[..] } else { &[] };
    for (status, code, error) in errors.iter().chain(rest).chain(expired).cloned() {
        let case = Case::new(status, code, route.sound.clone());
        cases.push(if route.is_admin() {
            case.with(Fault::Admin(error.into()))
        } else if route.is_read() {
            case.with(Fault::Read(error))
        } else {
            case.with(Fault::Write(error))
        });
    }
    if ["/v1/cluster", "/v1/ws"].contains(&route.pattern) {
        // What root asks is answered from what the node knows; who another is, the state says.
        cases.iter_mut().for_each(|case| case.ask = case.ask.clone().by("ann"));
    }
    if route.takes_positions() {
        let expired = route.sound.clone().header("x-quorate-min-position", EXPIRED);
        cases.push(Case::new(410, "position_expired", expired));
    }
    if route.is_admin() {
        let why = || "as the replica says".to_owned();
        for (status, code, error) in [
            (404, "not_found", AdminError::NotFound(why())),
            (409, "already_exists", AdminError::AlreadyExists(why())),
            (409, "conflict", AdminError::Conflict(why())),
            (422, "invalid", AdminError::Invalid(why())),
            (507, "disk_full", AdminError::Replica(ReplicaError::DiskFull)),
        ] {
            cases.push(Case::new(status, code, route.sound.clone()).with(Fault::Admin(error)));
        }
    }
    if route.is_probe() {
        cases.clear();
    }
    let status = |status, code, fault| Case::new(status, code, route.sound.clone()).with(Fault::Status(fault));
    match route.pattern {
        "/readyz" => cases.push(status(503, "not_ready", |status| status.leader = None)),
        "/leader" => {
            cases.push(status(503, "no_leader", |status| status.leader = None));
            cases.push(status(503, "not_ready", |status| {
                (status.leader, status.state) = (Some(2), RaftState::Follower);
            }));
        }
        _ => {}
    }
    cases
}
