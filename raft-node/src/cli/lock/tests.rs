//! The lock commands against a store whose answers are written by hand.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser;
use serde_json::{Value, json};

use super::{default_owner, parse_json, parse_ttl, parse_wait};
use crate::cli::exit::Failure;
use crate::cli::output::{Format, Output};
use crate::cli::testing::{self, Answer, refusal};
use crate::cli::{Cli, Command};

/// Runs a line, and answers what was asked.
async fn run(line: &str, answer: fn(&str, &str) -> Answer) -> (Result<(), Failure>, Vec<String>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = asked.clone();
    let url = testing::serve(move |method, path, body| {
        let body = String::from_utf8_lossy(body);
        let mut log = log.lock().expect("no test panics while holding it");
        log.push(format!("{method} {path} {body}").trim().to_owned());
        answer(method, path)
    })
    .await;
    let line = format!("quorate {line} --endpoints {url} --timeout 5");
    let mut cli = Cli::try_parse_from(line.split(' ')).expect("a good line");
    let Command::Lock(lock) = cli.command else {
        panic!("not a lock command: {line}");
    };
    let token = lock.take_token(&mut cli.global.token);
    assert_eq!(cli.global.token, None, "the lock's token is not shown as a session's");
    let client = cli.global.client(Duration::from_secs(5)).expect("good flags");
    let ended = lock.run(client, token, false, &Output::new(Format::Json)).await;
    let asked = asked.lock().expect("no test panics while holding it").clone();
    (ended, asked)
}

fn held() -> Value {
    json!({"lock": "deploy", "owner": "ann", "token": 7, "mode": "exclusive", "expires_in_ms": 5000})
}

#[tokio::test]
async fn each_command_asks_what_its_line_says() {
    let line = "lock acquire deploy --owner ann --ttl 1m --wait 2.5 --data {\"a\":1}";
    let (ended, asked) = run(line, |_, _| Some((200, held()))).await;
    ended.expect("it is granted");
    let body = r#"{"owner":"ann","ttl_ms":60000,"wait_ms":2500,"data":{"a":1}}"#;
    assert_eq!(asked, [format!("PUT /v1/locks/deploy {body}")]);

    let (ended, asked) = run("lock renew deploy --token 7 --ttl 5", |_, _| Some((200, held()))).await;
    ended.expect("it is held");
    assert_eq!(asked, [r#"POST /v1/locks/deploy/renew {"token":7,"ttl_ms":5000}"#]);

    let (ended, asked) = run("lock release deploy --token 7", |_, _| Some((204, Value::Null))).await;
    ended.expect("it is given back");
    assert_eq!(asked, ["DELETE /v1/locks/deploy?token=7"]);

    let (ended, asked) = run("lock list --limit 1", |_, _| Some((200, json!({"locks": []})))).await;
    ended.expect("a list");
    assert_eq!(asked, ["GET /v1/locks?limit=1"]);
}

#[tokio::test]
async fn without_a_locks_token_nothing_is_asked() {
    for line in ["lock renew deploy", "lock release deploy"] {
        let (ended, asked) = run(line, |_, _| Some((200, held()))).await;
        assert!(matches!(ended, Err(Failure::Usage(_))), "{line}: {ended:?}");
        assert_eq!(asked, Vec::<String>::new());
    }
}

#[tokio::test]
async fn who_is_refused_hears_who_holds_the_lock() {
    let (ended, _) = run("lock acquire deploy --owner bob", |method, _| {
        Some(match method {
            "PUT" => refusal(409, "lock_held"),
            _ => (
                200,
                json!({"lock": "deploy", "mode": "exclusive", "queue": [], "waiters": 3, "last_token": 7, "rev": 9,
                       "holders": [{"owner": "a\u{1b}nn", "token": 7, "expires_in_ms": 4200}]}),
            ),
        })
    })
    .await;
    let Err(Failure::Midway { failure, hint }) = ended else {
        panic!("{ended:?}");
    };
    assert!(matches!(*failure, Failure::Client(ref error) if error.code() == Some("lock_held")));
    assert_eq!(hint, "by a\\u{1b}nn with token 7, 4.2 s of its ttl left; waiting: 3");
}

#[tokio::test]
async fn a_grant_that_is_over_is_none_also_under_the_callers_key() {
    let line = "lock acquire deploy --owner ann --idempotency-key k";
    let (ended, asked) = run(line, |method, _| {
        Some(match method {
            "PUT" => {
                let mut over = held();
                over["expires_in_ms"] = json!(0);
                (200, over)
            }
            _ => refusal(412, "lock_lost"),
        })
    })
    .await;
    let Err(Failure::Midway { failure, hint }) = ended else {
        panic!("{ended:?}");
    };
    assert!(matches!(*failure, Failure::Client(ref error) if error.code() == Some("lock_lost")));
    assert!(hint.contains("is over"), "{hint}");
    assert_eq!(asked[1..], [r#"POST /v1/locks/deploy/renew {"token":7}"#]);
}

#[test]
fn lines_that_cannot_be_meant() {
    for line in [
        "lock acquire",
        "lock acquire deploy --ttl 50ms",
        "lock acquire deploy --ttl 61m",
        "lock acquire deploy --wait 61m",
        "lock acquire deploy --data null",
        "lock acquire deploy --data {",
        "lock run deploy",
        "lock run deploy --",
        "lock run -- true",
    ] {
        assert!(
            Cli::try_parse_from(["quorate"].into_iter().chain(line.split(' '))).is_err(),
            "{line}"
        );
    }
    let line = "quorate lock run deploy --ttl 10 -- sh -c --ttl --endpoints x";
    assert!(Cli::try_parse_from(line.split(' ')).is_ok());
}

#[test]
fn times_and_data_have_the_contracts_bounds() {
    assert_eq!(parse_ttl("100ms"), Ok(Duration::from_millis(100)));
    assert_eq!(parse_ttl("60m"), Ok(Duration::from_secs(3600)));
    assert!(parse_ttl("99ms").is_err() && parse_ttl("0").is_err());
    assert_eq!(parse_wait("0"), Ok(Duration::ZERO));
    assert_eq!(parse_wait("60m"), Ok(Duration::from_secs(3600)));
    assert_eq!(parse_json("[1]"), Ok(json!([1])));
}

#[test]
fn the_owner_is_found_by_people() {
    let owner = default_owner();
    assert!(owner.ends_with(&format!(":{}", std::process::id())), "{owner}");
    assert!(owner.contains('@'));
    quorate_state_machine::fields::lock_owner(&owner).expect("an owner as the contract has it");
}
