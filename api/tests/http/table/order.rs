//! Where two things are wrong, the one that the contract checks first is told.

use super::NOWHERE;
use super::bench::Bench;
use super::case::{Ask, Case, parse};
use super::route::{Route, routes};
use super::world::{USED, world};
use crate::contract;

/// The order of the checks. What is not in it has no place there.
const ORDER: [(u16, &str); 16] = [
    (404, "no route"),
    (405, "method_not_allowed"),
    (415, "unsupported_media_type"),
    (413, "too_large"),
    (400, "bad_request"),
    (401, "unauthenticated"),
    (422, "idempotency_mismatch"),
    (404, "not_found"),
    (403, "forbidden"),
    (403, "not_a_member"),
    (412, "precondition_failed"),
    (412, "lock_lost"),
    (409, "already_exists"),
    (409, "lock_held"),
    (409, "conflict"),
    (422, "invalid"),
];

fn place(status: u16, code: &str) -> Option<usize> {
    let found = ORDER.iter().position(|row| *row == (status, code))?;
    // Those of one status have one place, but for the two that come twice.
    ORDER[..=found]
        .iter()
        .rposition(|row| row.0 != status || row.1 == "no route")
}

/// Something wrong that can be put into any request, whatever else is wrong with it.
struct Flaw {
    status: u16,
    code: &'static str,
    put: fn(Ask) -> Ask,
}

const FLAWS: [Flaw; 9] = [
    Flaw {
        status: 404,
        code: "no route",
        put: |ask| {
            let nowhere = format!("{}{NOWHERE}", ask.path());
            ask.to(nowhere)
        },
    },
    Flaw {
        status: 405,
        code: "method_not_allowed",
        put: |ask| Ask {
            method: "FROB".to_owned(),
            ..ask
        },
    },
    Flaw {
        status: 415,
        code: "unsupported_media_type",
        put: |ask| ask.instead("content-type", "text/plain"),
    },
    Flaw {
        status: 413,
        code: "too_large",
        put: |ask| match ask.body {
            Some(_) => ask.header("content-length", "4194305"),
            None => ask.body("{}").header("content-length", "4194305"),
        },
    },
    Flaw {
        status: 400,
        code: "bad_request",
        put: |ask| ask.header("request-timeout-ms", "soon"),
    },
    Flaw {
        status: 401,
        code: "unauthenticated",
        put: |ask| ask.with_token("Bearer x"),
    },
    Flaw {
        status: 422,
        code: "idempotency_mismatch",
        put: |ask| ask.header("idempotency-key", USED),
    },
    Flaw {
        status: 412,
        code: "precondition_failed",
        put: |ask| ask.instead("if-match", "\"999\""),
    },
    Flaw {
        status: 412,
        code: "lock_lost",
        put: |ask| ask.header("if-lock", "never;token=1"),
    },
];

impl Flaw {
    /// A route that does not give the error does not look at what it is about.
    fn is_of(&self, route: &Route) -> bool {
        ["no route", "method_not_allowed"].contains(&self.code) || route.gives(self.status, self.code)
    }
}

/// The one that is told of a request with both; none where they have the same place.
fn first<'a>(one: (u16, &'a str), other: (u16, &'a str)) -> Option<(u16, &'a str)> {
    let (a, b) = (place(one.0, one.1)?, place(other.0, other.1)?);
    match a.cmp(&b) {
        std::cmp::Ordering::Less => Some(one),
        std::cmp::Ordering::Equal => None,
        std::cmp::Ordering::Greater => Some(other),
    }
}

async fn hold(bench: &Bench<'_>, ask: Ask, (status, code): (u16, &'static str)) {
    let code = if code == "no route" { "not_found" } else { code };
    bench.refuses(&Case::new(status, code, ask)).await;
}

#[tokio::test]
async fn of_two_flaws_that_any_request_may_have() {
    let world = world().await;
    let bench = Bench::new(world);
    for route in routes(world).await {
        let flaws: Vec<_> = FLAWS.iter().filter(|flaw| flaw.is_of(&route)).collect();
        for (n, one) in flaws.iter().enumerate() {
            for other in &flaws[n + 1..] {
                if let Some(told) = first((one.status, one.code), (other.status, other.code)) {
                    hold(&bench, (other.put)((one.put)(route.sound.clone())), told).await;
                }
            }
        }
    }
}

#[tokio::test]
async fn of_such_a_flaw_and_one_that_is_the_routes_own() {
    let world = world().await;
    let bench = Bench::new(world);
    let document = contract::document().await;
    let routes = routes(world).await;
    for row in parse(include_str!("rows.txt"), true, world) {
        let (pattern, _) = contract::route_of(document, &row.ask.target).unwrap();
        let is_its = |route: &&Route| route.pattern == pattern && route.method == row.ask.method;
        let route = routes.iter().find(is_its).unwrap();
        for flaw in FLAWS.iter().filter(|flaw| flaw.is_of(route)) {
            if let Some(told) = first((flaw.status, flaw.code), (row.status, row.code)) {
                hold(&bench, (flaw.put)(row.ask.clone()), told).await;
            }
        }
    }
}

#[tokio::test]
async fn of_two_that_are_the_routes_own() {
    let world = world().await;
    let bench = Bench::new(world);
    for case in parse(include_str!("order.txt"), true, world) {
        hold(&bench, case.ask, (case.status, case.code)).await;
    }
}
