//! Waiting, and coming back, against nodes whose answers are written by hand.

use std::time::{Duration, Instant};

use serde_json::{Value, json as value};

use crate::testing::{FakeNode, Received, Reply, dead_url, json, problem};
use crate::wire::{AcquireLock, LockMode};
use crate::{Client, Error, LockGuard, Options};

fn client(urls: &[&str]) -> Client {
    let options = Options {
        deadline: Duration::from_secs(5),
        attempt: Duration::from_secs(1),
        ..Options::default()
    };
    Client::new(urls, options).unwrap()
}

fn wanted(wait_ms: u64) -> AcquireLock {
    AcquireLock {
        owner: "ann".into(),
        ttl_ms: 5000,
        wait_ms: (wait_ms > 0).then_some(wait_ms),
        ..AcquireLock::default()
    }
}

fn held(token: u64, expires_in_ms: u64) -> Reply {
    json(
        200,
        value!({"lock": "l", "owner": "ann", "token": token, "mode": "exclusive", "expires_in_ms": expires_in_ms}),
    )
}

fn refused(status: u16, code: &str) -> Reply {
    json(status, problem(status, code, "not_applied"))
}

fn key(request: &Received) -> &str {
    &request.headers["idempotency-key"]
}

fn wait_of(request: &Received) -> Option<u64> {
    let body: Value = serde_json::from_str(&request.body).unwrap();
    body.get("wait_ms").map(|wait| wait.as_u64().unwrap())
}

#[tokio::test]
async fn the_calls_are_those_of_the_contract() {
    let node = FakeNode::start(|request, _| match request.method.as_str() {
        "DELETE" => Reply::Whole(204, Vec::new(), String::new()),
        "GET" if request.path.contains('?') => json(200, value!({"locks": [], "next_cursor": "l61"})),
        "GET" => json(
            200,
            value!({"lock": "a b", "mode": "exclusive", "holders": [{"owner": "ann", "token": 7, "expires_in_ms": 1}],
                    "queue": [{"owner": "bob", "waiting_ms": 2}], "waiters": 1, "last_token": 7, "rev": 9}),
        ),
        _ => held(7, 5000),
    })
    .await;
    let client = client(&[&node.url]);
    let given = AcquireLock {
        mode: Some(LockMode::Exclusive),
        data: Some(value!([1])),
        ..wanted(0)
    };
    assert_eq!(client.acquire_lock("张", &given).await.unwrap().token, 7);
    assert_eq!(client.renew_lock("张", 7, Some(900)).await.unwrap().expires_in_ms, 5000);
    client.release_lock("张", 7).await.unwrap();
    let lock = client.lock("张").await.unwrap();
    assert_eq!((lock.holders[0].token, lock.queue[0].waiting_ms), (7, 2));
    assert_eq!(client.locks(2, None).await.unwrap().next_cursor.as_deref(), Some("l61"));
    let lines: Vec<String> = node
        .received()
        .iter()
        .map(|request| format!("{} {} {}", request.method, request.path, request.body))
        .collect();
    assert_eq!(
        lines,
        [
            r#"PUT /v1/locks/%E5%BC%A0 {"owner":"ann","ttl_ms":5000,"mode":"exclusive","data":[1]}"#,
            r#"POST /v1/locks/%E5%BC%A0/renew {"token":7,"ttl_ms":900}"#,
            "DELETE /v1/locks/%E5%BC%A0?token=7 ",
            "GET /v1/locks/%E5%BC%A0 ",
            "GET /v1/locks?limit=2 ",
        ]
    );
}

#[tokio::test]
async fn a_wait_goes_on_at_another_node_under_its_key_and_its_time_is_not_the_nodes() {
    let broken = FakeNode::start(|_, _| Reply::Close).await;
    let stopping = FakeNode::start(|_, _| refused(503, "shutting_down")).await;
    let live = FakeNode::start(|_, _| held(7, 5000)).await;
    let client = client(&[&broken.url, &dead_url().await, &stopping.url, &live.url]);
    client.acquire_lock("l", &wanted(60_000)).await.unwrap();
    let asked = [broken.received(), stopping.received(), live.received()].map(|all| all[0].clone());
    assert_eq!(key(&asked[0]), key(&asked[1]));
    assert_eq!(key(&asked[0]), key(&asked[2]));
    assert_eq!(asked[0].body, asked[2].body);
    let timeout: u64 = asked[0].headers["request-timeout-ms"].parse().unwrap();
    assert!((900..=1000).contains(&timeout), "{timeout} ms");
}

#[tokio::test]
async fn a_node_that_can_do_nothing_is_left_although_it_keeps_the_connection() {
    let paused = FakeNode::start(|request, _| {
        if request.path == "/readyz" {
            refused(503, "not_ready")
        } else {
            Reply::Silence
        }
    })
    .await;
    let live = FakeNode::start(|_, _| held(7, 5000)).await;
    let begun = Instant::now();
    client(&[&paused.url, &live.url])
        .acquire_lock("l", &wanted(3_600_000))
        .await
        .unwrap();
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!(key(&paused.received()[0]), key(&live.received()[0]));
}

#[tokio::test]
async fn a_wait_that_ends_before_its_time_is_begun_anew() {
    let node = FakeNode::start(|_, n| {
        if n == 0 {
            refused(409, "lock_held")
        } else {
            held(7, 5000)
        }
    })
    .await;
    client(&[&node.url]).acquire_lock("l", &wanted(60_000)).await.unwrap();
    let received = node.received();
    assert_eq!(received.len(), 2);
    assert_ne!(key(&received[0]), key(&received[1]));
    let left = wait_of(&received[1]).unwrap();
    assert!((50_000..60_000).contains(&left), "{left} ms");

    // Without a wait, and under the caller's own key, a refusal is one.
    let node = FakeNode::start(|_, _| refused(409, "lock_held")).await;
    let client = client(&[&node.url]);
    let error = client.acquire_lock("l", &wanted(0)).await.unwrap_err();
    assert_eq!(error.code(), Some("lock_held"));
    let keyed = client.with_key("k").unwrap();
    let error = keyed.acquire_lock("l", &wanted(60_000)).await.unwrap_err();
    assert_eq!(error.code(), Some("lock_held"));
    assert_eq!(node.received().len(), 2);
}

#[tokio::test]
async fn a_grant_that_may_be_lost_is_renewed_or_asked_for_anew() {
    let node = FakeNode::start(|request, n| match (request.method.as_str(), n) {
        ("PUT", 0) => held(7, 0),
        ("PUT", _) => held(9, 5000),
        _ => refused(412, "lock_lost"),
    })
    .await;
    assert_eq!(
        client(&[&node.url]).acquire_lock("l", &wanted(0)).await.unwrap().token,
        9
    );
    let node = FakeNode::start(|request, _| {
        if request.method == "PUT" {
            held(7, 0)
        } else {
            held(7, 5000)
        }
    })
    .await;
    let kept = client(&[&node.url]).acquire_lock("l", &wanted(0)).await.unwrap();
    assert_eq!((kept.token, node.received().len()), (7, 2));
    assert!(kept.expires_in_ms >= 5000);
}

#[tokio::test]
async fn a_guard_counts_from_before_it_asked() {
    let delay = Duration::from_millis(300);
    let node = FakeNode::start(move |request, n| {
        if request.path.ends_with("renew") && n > 1 {
            return refused(412, "lock_lost");
        }
        std::thread::sleep(delay);
        held(7, 5000)
    })
    .await;
    let begun = Instant::now();
    let client = client(&[&node.url]);
    let mut guard = LockGuard::acquire(&client, "l", &wanted(0)).await.unwrap();
    let answered = Instant::now();
    assert!(guard.certain_until() >= begun + Duration::from_secs(5));
    assert!(guard.certain_until() <= answered + Duration::from_secs(5) - delay);
    assert_eq!((guard.lock(), guard.token()), ("l", 7));

    let before = Instant::now();
    guard.renew().await.unwrap();
    assert!(guard.certain_until() >= before + Duration::from_secs(5));
    assert!(guard.certain_until() <= Instant::now() + Duration::from_secs(5) - delay);
    let until = guard.certain_until();
    assert!(matches!(guard.renew().await, Err(Error::Refused(_))));
    assert_eq!(guard.certain_until(), until);
}

#[tokio::test]
async fn after_a_long_wait_a_guard_renews_at_once() {
    let node = FakeNode::start(|request, _| {
        if request.method == "PUT" {
            std::thread::sleep(Duration::from_millis(300));
        }
        json(
            200,
            value!({"lock": "l", "owner": "ann", "token": 7, "mode": "exclusive", "expires_in_ms": 400}),
        )
    })
    .await;
    let short = AcquireLock {
        ttl_ms: 400,
        ..wanted(5000)
    };
    let guard = LockGuard::acquire(&client(&[&node.url]), "l", &short).await.unwrap();
    assert_eq!(node.received().len(), 2);
    assert!(guard.certain_for() > Duration::from_millis(100));
}

fn has_key(request: &Received) -> bool {
    request.headers.contains_key("idempotency-key")
}

#[tokio::test]
async fn renewals_and_releases_take_only_the_callers_key() {
    let node = FakeNode::start(|request, _| match request.method.as_str() {
        "DELETE" => Reply::Whole(204, Vec::new(), String::new()),
        _ => held(7, 5000),
    })
    .await;
    let client = client(&[&node.url]);
    client.renew_lock("l", 7, None).await.unwrap();
    client.release_lock("l", 7).await.unwrap();
    assert!(!node.received().iter().any(has_key));
    client.with_key("k1").unwrap().renew_lock("l", 7, None).await.unwrap();
    client.with_key("k2").unwrap().release_lock("l", 7).await.unwrap();
    let received = node.received();
    assert_eq!([key(&received[2]), key(&received[3])], ["k1", "k2"]);

    // The guard's caller has chosen it for the acquisition.
    let guard = LockGuard::acquire(&client.with_key("k3").unwrap(), "l", &wanted(0)).await;
    guard.unwrap().release().await.unwrap();
    let received = node.received();
    assert_eq!((key(&received[4]), has_key(&received[5])), ("k3", false));
}

#[tokio::test]
async fn a_renewal_or_release_whose_answer_was_lost_is_repeated() {
    for lost in [true, false] {
        let node = FakeNode::start(move |_, n| match n {
            0 if lost => Reply::Close,
            _ => refused(412, "lock_lost"),
        })
        .await;
        let released = client(&[&node.url]).release_lock("l", 7).await;
        assert_eq!(released.is_ok(), lost, "{released:?}");
    }
    let node = FakeNode::start(|_, n| if n == 0 { Reply::Close } else { held(7, 5000) }).await;
    client(&[&node.url]).renew_lock("l", 7, None).await.unwrap();
    // It is held by nobody with that token, whatever became of the first attempt.
    for (status, code) in [(412, "lock_lost"), (404, "not_found")] {
        let node = FakeNode::start(move |_, n| match n {
            0 => Reply::Close,
            _ => refused(status, code),
        })
        .await;
        let error = client(&[&node.url]).renew_lock("l", 7, None).await.unwrap_err();
        assert_eq!(error.code(), Some(code));
    }
}

#[tokio::test]
async fn a_grant_under_the_callers_key_that_is_over_is_none() {
    let node = FakeNode::start(|request, _| match request.method.as_str() {
        "PUT" => held(7, 0),
        _ => refused(412, "lock_lost"),
    })
    .await;
    let keyed = client(&[&node.url]).with_key("k").unwrap();
    let error = keyed.acquire_lock("l", &wanted(0)).await.unwrap_err();
    assert_eq!(error.code(), Some("lock_lost"));
    let received = node.received();
    assert_eq!((received.len(), has_key(&received[1])), (2, false));
}

#[tokio::test]
async fn a_guard_that_cannot_renew_after_its_wait_gives_the_lock_back() {
    let node = FakeNode::start(|request, _| match request.method.as_str() {
        "PUT" => held(7, 1000),
        "POST" => refused(403, "forbidden"),
        _ => Reply::Whole(204, Vec::new(), String::new()),
    })
    .await;
    let error = LockGuard::acquire(&client(&[&node.url]), "l", &wanted(0)).await;
    assert_eq!(error.unwrap_err().code(), Some("forbidden"));
    let methods: Vec<String> = node.received().into_iter().map(|request| request.method).collect();
    assert_eq!(methods, ["PUT", "POST", "DELETE"]);
}
