//! A refusal under an idempotency key: what was decided is remembered, and nothing else; what was not is not.

use quorate_api::ApiConfig;
use quorate_state_machine::keys::Key;
use quorate_state_machine::query::standing;
use quorate_state_machine::{MemoryView, SpaceId};

use super::bench::Bench;
use super::case::{Case, parse};
use super::route::{Route, routes};
use super::world::world;
use super::{check, unchanged};
use crate::contract;

const KEY: &str = "refused";

/// The state has gained the record of the key, and has changed in nothing else.
fn only_the_record(before: &MemoryView, after: &MemoryView, case: &Case) {
    let mut added = Vec::new();
    let old: std::collections::BTreeMap<&[u8], &[u8]> = before.iter().collect();
    for (key, value) in after.iter() {
        let (_, place) = Key::decode(key).unwrap();
        match (old.get(key), place) {
            // How many records there are, and when the first expires, stands with the counters; the rest of
            // that row is below.
            (_, Key::System) => {}
            (Some(old), place) => assert_eq!(*old, value, "{case}: {place:?} has changed"),
            (None, Key::Dedup { key, .. }) => added.push(("record", key)),
            (None, Key::DedupExpiry { key, .. }) => added.push(("expiry", key)),
            (None, place) => panic!("{case}: {place:?} is new"),
        }
    }
    assert_eq!(added, [("record", KEY), ("expiry", KEY)], "{case}");
    assert_eq!(
        after.iter().count(),
        before.iter().count() + 2,
        "{case}: something is gone"
    );
    let standing = |state: &MemoryView| standing(state, SpaceId::MAIN).unwrap();
    assert_eq!(standing(after), standing(before), "{case}");
}

#[tokio::test]
async fn a_refusal_is_remembered_under_its_key_if_it_was_decided() {
    let world = world().await;
    let bench = Bench::new(world);
    let document = contract::document().await;
    let routes = routes(world).await;
    let (mut decided, mut others) = (0, 0);
    for mut case in parse(include_str!("rows.txt"), true, world) {
        let (pattern, _) = contract::route_of(document, &case.ask.target).unwrap();
        let is_its = |route: &&Route| route.pattern == pattern && route.method == case.ask.method;
        let route = routes.iter().find(is_its).unwrap();
        if route.is_read() {
            continue;
        }
        case.ask = case.ask.header("idempotency-key", KEY);
        // What is wrong in itself and who is nobody is told before the key is looked up.
        if !route.takes_keys() || matches!(case.status, 400 | 401 | 413) {
            others += 1;
            for _ in 0..2 {
                bench.refuses(&case).await;
            }
            continue;
        }
        decided += 1;
        let node = world.node(ApiConfig::default());
        let before = node.replica.state();
        let reply = node.call(case.ask.to_request(false)).await;
        let once = node.replica.state();
        only_the_record(&before, &once, &case);
        check(&case, &node, &reply);

        let mut again = node.call(case.ask.to_request(false)).await;
        unchanged(&case, &once, &node.replica.state());
        let replayed = again.headers.remove("idempotency-replayed");
        assert_eq!(replayed.expect("it was decided before"), "true", "{case}");
        assert_eq!(again.body, reply.body, "{case}");
        check(&case, &node, &again);
    }
    assert!(decided > 50 && others > 50, "{decided} and {others}");
}
