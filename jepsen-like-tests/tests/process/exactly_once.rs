//! Writes of every kind, each sent several times over different nodes under one idempotency key while leaders
//! are killed: each is applied once, and every copy gets the same answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::future::join_all;
use quorate_torture::cluster::Cluster;
use quorate_torture::http::{Answer, Call};
use quorate_torture::wait::eventually;
use quorate_torture::workload::messages;
use reqwest::Method;
use serde_json::{Value, json};

use crate::SOON;

/// How many writes, unless `QUORATE_TEST_WRITES` says otherwise.
const WRITES: u64 = 2000;
/// Each works in rooms, users and locks of its own, so that what a write is answered is known.
const CLIENTS: u64 = 8;
/// A copy whose outcome is unknown is sent again, to the next node, until this is over.
const COPY_WITHIN: Duration = Duration::from_secs(60);
const COPY_TIMEOUT: Duration = Duration::from_secs(2);
const KILLS: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_many_copies_is_one_write() {
    let writes: u64 = std::env::var("QUORATE_TEST_WRITES").map_or(WRITES, |text| text.parse().unwrap());
    let cluster = Arc::new(Cluster::options().nodes(5).start().await.unwrap());
    let before = revision(&cluster).await.unwrap();
    let done = Arc::new(AtomicU64::new(0));
    let clients = (0..CLIENTS).map(|number| {
        let client = Client {
            cluster: cluster.clone(),
            number,
            written: 0,
            random: number + 1,
            done: done.clone(),
            tally: Tally::default(),
        };
        tokio::spawn(client.write(writes / CLIENTS))
    });
    let clients: Vec<_> = clients.collect();

    // The kills are spread over the work.
    for kill in 1..=KILLS {
        let upto = writes * kill as u64 / (KILLS as u64 + 1);
        let reached = async || match done.load(Ordering::Relaxed) {
            done if done >= upto => Ok(()),
            done => Err(format!("{done} of {upto} writes")),
        };
        eventually("the work goes on", COPY_WITHIN * 4, reached).await.unwrap();
        let leader = cluster.leader().await.unwrap();
        cluster.kill(leader).await.unwrap();
        cluster.leader_after(leader).await.unwrap();
        cluster.restart(leader).unwrap();
    }
    let mut all = Tally::default();
    for client in clients {
        all.add(&client.await.unwrap().unwrap());
    }
    println!("{all:?}");
    assert!(all.writes >= writes / CLIENTS * CLIENTS);
    assert!(all.copies > 3 * all.writes, "{all:?}");
    assert!(all.replayed > all.writes, "{all:?}");
    assert!(all.unknown > 0, "no copy has met a dead leader: {all:?}");
    // Every write that changes something takes one revision, however often it was sent.
    let after = revision(&cluster).await.unwrap();
    assert_eq!(after - before, all.changes, "{all:?}");
    cluster.wait_all_ready().await.unwrap();
    let verified = async || {
        let answer = cluster
            .send(1, Call::get("/v1/cluster/verify"))
            .await
            .map_err(|error| error.to_string())?;
        match answer.status {
            200 => Ok(answer),
            _ => Err(answer.to_string()),
        }
    };
    let verified = eventually("the states are compared", SOON, verified).await.unwrap();
    let nodes = verified.json().unwrap()["nodes"].as_array().unwrap().clone();
    assert_eq!(nodes.len(), 5);
    for node in nodes {
        assert_eq!(node["differs"], json!(false), "{verified}");
        assert!(node["hash"].is_string(), "{verified}");
    }
}

/// The store's revision, which counts the changes.
async fn revision(cluster: &Cluster) -> Result<u64> {
    let read = async || -> Result<u64> {
        let answer = cluster.expect(1, Call::get("/v1/users"), 200).await?;
        let position = answer.position()?;
        let revision = position.split('.').nth(2).context("a position names a revision")?;
        Ok(revision.parse()?)
    };
    eventually("the revision is read", SOON, read).await
}

#[derive(Debug, Default)]
struct Tally {
    writes: u64,
    /// Of them so many have changed something.
    changes: u64,
    copies: u64,
    replayed: u64,
    /// Attempts whose outcome was unknown, or that met a node that could not serve.
    unknown: u64,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.writes += other.writes;
        self.changes += other.changes;
        self.copies += other.copies;
        self.replayed += other.replayed;
        self.unknown += other.unknown;
    }
}

struct Client {
    cluster: Arc<Cluster>,
    number: u64,
    written: u64,
    random: u64,
    done: Arc<AtomicU64>,
    tally: Tally,
}

impl Client {
    /// Rounds of writes of all kinds, in which each write builds on those before it.
    async fn write(mut self, writes: u64) -> Result<Tally> {
        let mut round = 0;
        while self.written < writes {
            self.round(round)
                .await
                .with_context(|| format!("client {}, round {round}", self.number))?;
            round += 1;
        }
        Ok(self.tally)
    }

    async fn round(&mut self, round: u64) -> Result<()> {
        let n = self.number;
        let (user, room, lock) = (format!("u{n}-{round}"), format!("r{n}-{round}"), format!("l{n}"));
        let (user_path, room_path, lock_path) = (
            format!("/v1/users/{user}"),
            format!("/v1/rooms/{room}"),
            format!("/v1/locks/{lock}"),
        );
        let to = messages(&room);
        let members = format!("{room_path}/members/{user}");

        self.changes(Call::post("/v1/users", &json!({ "user": user })), 201)
            .await?;
        self.refused(
            Call::post("/v1/users", &json!({ "user": user, "display_name": "other" })),
            409,
        )
        .await?;
        self.changes(
            patch(&user_path, &json!({ "display_name": format!("name {round}") })),
            200,
        )
        .await?;
        let made = json!({ "room": room, "kind": "group", "title": "t" });
        self.changes(Call::post("/v1/rooms", &made), 201).await?;
        self.changes(patch(&room_path, &json!({ "title": format!("title {round}") })), 200)
            .await?;
        self.refused(Call::post(&to, &json!({ "text": "stranger" })).as_user(&user), 403)
            .await?;
        self.changes(Call::put(&members, &json!({ "role": "member" })), 201)
            .await?;
        let held = json!({ "owner": "o", "ttl_ms": 600_000 });
        let held = self.changes(Call::put(&lock_path, &held), 200).await?;
        let token = held["token"].as_u64().context("a lock has a token")?;
        self.refused(Call::put(&lock_path, &json!({ "owner": "p", "ttl_ms": 1000 })), 409)
            .await?;
        for text in 0..4 {
            let guarded = Call::post(&to, &json!({ "text": format!("guarded {text}") }));
            let sent = self
                .changes(guarded.header("If-Lock", format!("{lock};token={token}")), 201)
                .await?;
            ensure!(sent["seq"] == json!(text + 1), "{sent}");
        }
        let batch: Vec<Value> = (0..5).map(|text| json!({ "text": format!("batch {text}") })).collect();
        let sent = self
            .changes(
                Call::post(format!("{to}/batch"), &json!({ "messages": batch })).as_user(&user),
                201,
            )
            .await?;
        ensure!(sent["seqs"] == json!([5, 6, 7, 8, 9]), "{sent}");
        let edited = patch(&format!("{to}/5"), &json!({ "text": format!("edited {round}") })).as_user(&user);
        self.changes(edited, 200).await?;
        self.changes(Call::new(Method::DELETE, format!("{to}/6")), 204).await?;
        let renewed = Call::post(format!("{lock_path}/renew"), &json!({ "token": token }));
        self.changes(renewed, 200).await?;
        self.changes(Call::new(Method::DELETE, format!("{lock_path}?token={token}")), 204)
            .await?;
        let stale = Call::post(&to, &json!({ "text": "stale" }));
        self.refused(stale.header("If-Lock", format!("{lock};token={token}")), 412)
            .await?;
        let tagged = patch(&room_path, &json!({ "title": "never" }));
        self.refused(tagged.header("If-Match", "\"1\""), 412).await?;
        self.changes(Call::new(Method::DELETE, &members), 204).await?;
        self.refused(Call::new(Method::DELETE, &members), 404).await?;
        self.changes(Call::new(Method::DELETE, &user_path), 204).await?;
        if round % 4 == 3 {
            self.changes(Call::new(Method::DELETE, &room_path), 204).await?;
        }
        Ok(())
    }

    async fn changes(&mut self, call: Call, status: u16) -> Result<Value> {
        let body = self.copies(call, status).await?;
        self.tally.changes += 1;
        Ok(body)
    }

    async fn refused(&mut self, call: Call, status: u16) -> Result<()> {
        self.copies(call, status).await.map(drop)
    }

    /// Sends the write two to five times at once, to different nodes, and compares the answers.
    async fn copies(&mut self, call: Call, status: u16) -> Result<Value> {
        let what = format!("{} {}", call.method, call.path);
        let call = call
            .key(&format!("k{}-{}", self.number, self.written))
            .timeout(COPY_TIMEOUT);
        let count = 2 + self.random(4);
        let first = self.random(5);
        let copies = (0..count).map(|copy| settle(&self.cluster, call.clone(), first + copy));
        let copies = join_all(copies).await;
        let mut answers = Vec::new();
        for copy in copies {
            let (answer, unknown) = copy.with_context(|| what.clone())?;
            self.tally.unknown += unknown;
            answers.push(answer);
        }
        let shown: Vec<String> = answers.iter().map(Answer::to_string).collect();
        let mut bodies = Vec::new();
        let mut fresh = 0;
        for answer in &answers {
            ensure!(answer.status == status, "{what} is to be {status}: {shown:#?}");
            match answer.header("Idempotency-Replayed") {
                Some("true") => self.tally.replayed += 1,
                Some(other) => bail!("Idempotency-Replayed: {other}"),
                None => fresh += 1,
            }
            bodies.push(comparable(answer)?);
        }
        ensure!(
            bodies.iter().all(|body| *body == bodies[0]),
            "the copies of {what} differ: {shown:#?}"
        );
        // None, if the one that was applied was not answered.
        ensure!(fresh <= 1, "{what} was applied {fresh} times: {shown:#?}");
        self.tally.writes += 1;
        self.tally.copies += count;
        self.written += 1;
        self.done.fetch_add(1, Ordering::Relaxed);
        Ok(bodies.swap_remove(0))
    }

    fn random(&mut self, bound: u64) -> u64 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % bound
    }
}

/// Repeats one copy until its outcome is known, from node to node. Also says how often it was not.
async fn settle(cluster: &Cluster, call: Call, first: u64) -> Result<(Answer, u64)> {
    let until = Instant::now() + COPY_WITHIN;
    let mut unknown = 0;
    loop {
        let node = 1 + (first + unknown) % 5;
        let reason = match cluster.send(node, call.clone()).await {
            Ok(answer) if !matches!(answer.status, 429 | 503 | 504) => return Ok((answer, unknown)),
            Ok(answer) => answer.to_string(),
            Err(error) => error.to_string(),
        };
        ensure!(Instant::now() < until, "no outcome after {COPY_WITHIN:?}: {reason}");
        unknown += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// All of an answer's body that is the same for all copies: not which request it was, nor how much time is left.
fn comparable(answer: &Answer) -> Result<Value> {
    if answer.body.is_empty() {
        return Ok(Value::Null);
    }
    let mut body = answer.json()?;
    let fields = body.as_object_mut().context("an answer is an object")?;
    for different in ["request_id", "expires_in_ms", "holders", "queue"] {
        fields.remove(different);
    }
    Ok(body)
}

fn patch(path: &str, body: &Value) -> Call {
    Call::new(Method::PATCH, path).json(body)
}
