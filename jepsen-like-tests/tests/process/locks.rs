//! Locks over real nodes: who contends for one is served in turn, with larger and larger tokens, through
//! failovers and with a wall clock that is an hour ahead; and the store itself refuses who holds it no longer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::join_all;
use quorate_torture::cluster::{Cluster, WrongClock};
use quorate_torture::http::{Answer, Call};
use quorate_torture::wait::eventually;
use quorate_torture::workload::messages;
use reqwest::Method;
use serde_json::{Value, json};

use crate::SOON;

const LOCK: &str = "/v1/locks/leader-of-the-band";
const TTL: Duration = Duration::from_millis(1500);
const WAIT: Duration = Duration::from_secs(30);
const ATTEMPT: Duration = Duration::from_secs(2);

/// What one client knows of one time that it held the lock, by the clock of this process.
#[derive(Debug, Clone)]
struct Hold {
    client: u64,
    token: u64,
    /// When the answer came that said so.
    granted: Instant,
    /// It was certainly held until then: the time is up, or the release was sent.
    ends: Instant,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_contend_through_failovers_with_a_clock_an_hour_ahead() {
    let mut options = Cluster::options().nodes(5);
    let clock = WrongClock::off_by("+3600");
    match &clock {
        Some(clock) => options = options.wrong_clock(2, clock.clone()),
        None => {
            println!("SKIPPED: no node has a wrong clock here, because libfaketime is not installed (Debian: faketime)")
        }
    }
    let cluster = Arc::new(options.start().await.unwrap());
    cluster.create_room(1, "stage").await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let holds = Arc::new(AtomicU64::new(0));
    let contend = join_all((0..2).map(|number| {
        let client = Contender {
            cluster: cluster.clone(),
            number,
            attempts: 0,
            holds: holds.clone(),
        };
        client.contend(stop.clone())
    }));

    let more_holds = async |count: u64| {
        let wanted = holds.load(Ordering::Relaxed) + count;
        let reached = async || match holds.load(Ordering::Relaxed) {
            held if held >= wanted => Ok(()),
            held => Err(format!("held {held} of {wanted} times")),
        };
        eventually("the lock goes from hand to hand", WAIT, reached)
            .await
            .unwrap();
    };
    let faults = async {
        more_holds(4).await;
        // The one with the wrong clock leads for a while: it stamps every entry.
        let transfer = Call::post("/v1/cluster/transfer", &json!({ "to": 2 }));
        let transferred = async || cluster.expect(1, transfer.clone(), 200).await;
        eventually("node 2 leads", SOON, transferred).await.unwrap();
        more_holds(6).await;
        for _ in 0..3 {
            let leader = cluster.leader().await.unwrap();
            cluster.kill(leader).await.unwrap();
            cluster.leader_after(leader).await.unwrap();
            more_holds(4).await;
            cluster.restart(leader).unwrap();
            cluster.wait_all_ready().await.unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    };
    let (clients, ()) = tokio::join!(contend, faults);
    let mut all: Vec<Hold> = clients.into_iter().flat_map(Result::unwrap).collect();

    all.sort_by_key(|hold| hold.token);
    assert!(all.windows(2).all(|pair| pair[0].token < pair[1].token), "{all:#?}");
    for pair in all.windows(2) {
        // Nobody was granted the lock while another could be sure of it.
        assert!(
            pair[1].granted >= pair[0].ends,
            "{:?} too early, after {:?}",
            pair[1],
            pair[0]
        );
    }
    for client in 0..2 {
        assert!(all.iter().filter(|hold| hold.client == client).count() >= 5, "{all:#?}");
    }
    // What was written under the lock stands in the order of the tokens.
    let tokens = written_tokens(&cluster).await.unwrap();
    assert!(tokens.is_sorted() && tokens.len() >= all.len(), "{tokens:?}");
    let verified = cluster.expect(1, Call::get("/v1/cluster/verify"), 200).await.unwrap();
    for node in verified.json().unwrap()["nodes"].as_array().unwrap() {
        assert!(
            node["hash"].is_string() && node["differs"] == json!(false),
            "{verified}"
        );
    }
}

struct Contender {
    cluster: Arc<Cluster>,
    number: u64,
    attempts: u64,
    holds: Arc<AtomicU64>,
}

impl Contender {
    /// Takes the lock again and again. Every third time it is not given back, but lost.
    async fn contend(mut self, stop: Arc<AtomicBool>) -> Result<Vec<Hold>> {
        let mut holds = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let Some(hold) = self.hold(holds.len() % 3 == 2).await? else {
                continue;
            };
            holds.push(hold);
            self.holds.fetch_add(1, Ordering::Relaxed);
        }
        Ok(holds)
    }

    async fn hold(&mut self, lose: bool) -> Result<Option<Hold>> {
        let owner = format!("client {}", self.number);
        let ask = json!({ "owner": owner, "ttl_ms": TTL.as_millis() as u64, "wait_ms": WAIT.as_millis() as u64 });
        let answer = self.ask(Call::put(LOCK, &ask), WAIT + ATTEMPT).await?.0;
        if answer.status == 409 {
            return Ok(None);
        }
        let token = answer.expect_status(200)?.json()?["token"]
            .as_u64()
            .context("a token")?;
        let granted = Instant::now();
        let mut ends = granted;
        // From here on it is known for how long it is held.
        let (renewed, asked) = self
            .ask(Call::post(format!("{LOCK}/renew"), &json!({ "token": token })), ATTEMPT)
            .await?;
        match renewed.status {
            200 => ends = asked + TTL,
            412 => {
                return Ok(Some(Hold {
                    client: self.number,
                    token,
                    granted,
                    ends,
                }));
            }
            _ => {
                renewed.expect_status(200)?;
            }
        }
        let (written, _) = self.guarded(token).await?;
        if written.status == 412 {
            ensure!(Instant::now() >= ends, "lost too early: {written}");
            return Ok(Some(Hold {
                client: self.number,
                token,
                granted,
                ends,
            }));
        }
        written.expect_status(201)?;
        if lose {
            // Whoever was slow believes that he still holds it; the store knows better.
            let lost = async || {
                let (late, _) = self.guarded(token).await?;
                ensure!(late.status == 412, "{late}");
                ensure!(late.code() == "lock_lost", "{late}");
                Ok(Instant::now())
            };
            let lost: Instant = eventually("the ttl is over", SOON, lost).await?;
            ensure!(lost >= ends, "lost before its time");
        } else {
            let released = Instant::now();
            let release = Call::new(Method::DELETE, format!("{LOCK}?token={token}"));
            let (answer, _) = self.ask(release, ATTEMPT).await?;
            ensure!(matches!(answer.status, 204 | 412), "{answer}");
            ends = ends.min(released);
        }
        Ok(Some(Hold {
            client: self.number,
            token,
            granted,
            ends,
        }))
    }

    async fn guarded(&mut self, token: u64) -> Result<(Answer, Instant)> {
        let call = Call::post(messages("stage"), &json!({ "text": token.to_string() }));
        let call = call.header("If-Lock", format!("leader-of-the-band;token={token}"));
        self.ask(call, ATTEMPT).await
    }

    /// Asks one node after the other under one key until one says what came of it; and when it was first asked.
    async fn ask(&mut self, call: Call, within: Duration) -> Result<(Answer, Instant)> {
        self.attempts += 1;
        let call = call
            .key(&format!("c{}-{}", self.number, self.attempts))
            .timeout(ATTEMPT);
        let first = Instant::now();
        let until = first + within + SOON;
        let mut node = self.number + self.attempts;
        loop {
            node += 1;
            let asked = Instant::now();
            let reason = match self.cluster.send(1 + node % 5, call.clone()).await {
                Ok(answer) if !matches!(answer.status, 429 | 503 | 504) => {
                    // The clock of a renewal runs from before the attempt that was answered, at the latest.
                    let from = if answer.header("Idempotency-Replayed").is_some() {
                        first
                    } else {
                        asked
                    };
                    return Ok((answer, from));
                }
                Ok(answer) => answer.to_string(),
                Err(error) => error.to_string(),
            };
            ensure!(Instant::now() < until, "{} {}: {reason}", call.method, call.path);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The tokens in the order of the room.
async fn written_tokens(cluster: &Cluster) -> Result<Vec<u64>> {
    let mut tokens = Vec::new();
    loop {
        let call = Call::get(format!("{}?after={}&limit=500", messages("stage"), tokens.len()));
        let page = cluster.expect(1, call, 200).await?.json()?;
        let found = page["messages"].as_array().context("a page has messages")?;
        if found.is_empty() {
            return Ok(tokens);
        }
        for message in found {
            tokens.push(message["text"].as_str().context("a text")?.parse()?);
        }
    }
}

/// Six wait at four nodes, the leader dies, the holder gives the lock back: they are served as they came.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_is_served_in_turn_after_a_failover() {
    let cluster = Arc::new(Cluster::options().nodes(5).start().await.unwrap());
    let leader = cluster.leader().await.unwrap();
    let others = cluster.others(leader);
    let ask = |owner: &str, wait_ms: u64| json!({ "owner": owner, "ttl_ms": 60_000, "wait_ms": wait_ms });
    let held = cluster
        .expect(others[0], Call::put(LOCK, &ask("first", 0)), 200)
        .await
        .unwrap();
    let mut token = held.json().unwrap()["token"].as_u64().unwrap();
    let mut waiting = Vec::new();
    for place in 0..6usize {
        let (node, at) = (others[place % others.len()], cluster.clone());
        let body = ask(&format!("waiter {place}"), 60_000);
        waiting.push(tokio::spawn(Box::pin(async move {
            let call = Call::put(LOCK, &body).timeout(Duration::from_secs(60));
            at.expect(node, call, 200).await
        })));
        wait_queue(&cluster, others[1], place + 1).await;
    }
    // One who does not want to wait is told who holds it and who waits.
    let refused = cluster
        .expect(others[2], Call::put(LOCK, &ask("hurried", 0)), 409)
        .await
        .unwrap();
    let body = refused.json().unwrap();
    assert_eq!(refused.code(), "lock_held");
    assert_eq!(body["holders"][0]["owner"], json!("first"), "{body}");
    assert_eq!(body["queue"].as_array().map(Vec::len), Some(6), "{body}");

    cluster.kill(leader).await.unwrap();
    cluster.leader_after(leader).await.unwrap();
    for (place, waiter) in waiting.into_iter().enumerate() {
        let release = Call::new(Method::DELETE, format!("{LOCK}?token={token}")).key(&format!("release-{place}"));
        let released = async || cluster.expect(others[0], release.clone(), 204).await;
        eventually("the lock is given back", SOON, released).await.unwrap();
        let granted = tokio::time::timeout(SOON, waiter).await.unwrap().unwrap().unwrap();
        let granted = granted.json().unwrap();
        assert_eq!(granted["owner"], json!(format!("waiter {place}")), "{granted}");
        let next = granted["token"].as_u64().unwrap();
        assert!(next > token, "{next} after {token}");
        token = next;
    }
}

/// The waiter of a closed connection, and those of a dead node, are nobody's turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_gone_is_not_served() {
    let cluster = Arc::new(Cluster::options().start().await.unwrap());
    let leader = cluster.leader().await.unwrap();
    let others = cluster.others(leader);
    let ask = |owner: &str, wait_ms: u64| json!({ "owner": owner, "ttl_ms": 600_000, "wait_ms": wait_ms });
    let held = cluster
        .expect(leader, Call::put(LOCK, &ask("first", 0)), 200)
        .await
        .unwrap();
    let token = held.json().unwrap()["token"].as_u64().unwrap();
    let wait_at = |node: u64, owner: &'static str| {
        let (cluster, body) = (cluster.clone(), ask(owner, 60_000));
        tokio::spawn(Box::pin(async move {
            let call = Call::put(LOCK, &body).timeout(Duration::from_secs(60));
            cluster.send(node, call).await
        }))
    };
    let closed = wait_at(others[0], "closed");
    wait_queue(&cluster, leader, 1).await;
    let dead = wait_at(others[1], "dead");
    wait_queue(&cluster, leader, 2).await;
    let living = wait_at(leader, "living");
    wait_queue(&cluster, leader, 3).await;
    // Dropping the request closes its connection.
    closed.abort();
    wait_queue(&cluster, leader, 2).await;
    let killed = Instant::now();
    cluster.kill(others[1]).await.unwrap();
    wait_queue(&cluster, leader, 1).await;
    println!("dropped after {:?}", killed.elapsed());
    assert!(dead.await.unwrap().is_err());
    let release = Call::new(Method::DELETE, format!("{LOCK}?token={token}"));
    cluster.expect(leader, release, 204).await.unwrap();
    let granted = tokio::time::timeout(SOON, living).await.unwrap().unwrap().unwrap();
    assert_eq!(
        granted.expect_status(200).unwrap().json().unwrap()["owner"],
        json!("living")
    );
}

/// Waits until so many wait for the lock.
async fn wait_queue(cluster: &Cluster, node: u64, count: usize) {
    let seen = async || {
        let shown: Value = cluster.expect(node, Call::get(LOCK), 200).await?.json()?;
        ensure!(shown["queue"].as_array().map(Vec::len) == Some(count), "{shown}");
        Ok(())
    };
    eventually("the queue is as long as that", SOON, seen).await.unwrap();
}

/// A leader that is cut off hears from nobody, which says nothing of the others: it gives up nobody who waits
/// there, neither then nor when it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_cut_off_gives_up_nobody() {
    /// It asks its members twice a second and gives up after a second; that nothing comes of it can only be
    /// waited for.
    const LONG_ENOUGH: Duration = Duration::from_secs(3);
    let cluster = Arc::new(Cluster::options().breakable_links().start().await.unwrap());
    let old = cluster.leader().await.unwrap();
    let others = cluster.others(old);
    let ask = |owner: &str, wait_ms: u64| json!({ "owner": owner, "ttl_ms": 600_000, "wait_ms": wait_ms });
    let held = cluster
        .expect(others[0], Call::put(LOCK, &ask("first", 0)), 200)
        .await
        .unwrap();
    let token = held.json().unwrap()["token"].as_u64().unwrap();
    let (at, body) = (cluster.clone(), ask("waiter", 60_000));
    let node = others[1];
    let waiter = tokio::spawn(Box::pin(async move {
        let call = Call::put(LOCK, &body).timeout(Duration::from_secs(60));
        at.send(node, call).await
    }));
    wait_queue(&cluster, others[0], 1).await;

    cluster.network().isolate(old);
    let new = cluster.leader_among(&others).await.unwrap();
    tokio::time::sleep(LONG_ENOUGH).await;
    cluster.network().heal();
    let follows = async || {
        let answer = cluster.expect(old, Call::get("/readyz"), 200).await?;
        ensure!(
            answer.header("X-Quorate-Leader") == Some(new.to_string().as_str()),
            "{answer}"
        );
        Ok(())
    };
    eventually("the old leader follows the new one", SOON, follows)
        .await
        .unwrap();
    tokio::time::sleep(LONG_ENOUGH).await;
    wait_queue(&cluster, others[0], 1).await;
    let release = Call::new(Method::DELETE, format!("{LOCK}?token={token}"));
    cluster.expect(others[0], release, 204).await.unwrap();
    let granted = tokio::time::timeout(SOON, waiter).await.unwrap().unwrap().unwrap();
    assert_eq!(
        granted.expect_status(200).unwrap().json().unwrap()["owner"],
        json!("waiter")
    );
}
