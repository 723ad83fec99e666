//! What clients do to rooms while a test breaks things, one operation at a time, with the history kept.
//! [`crate::load`] does it without pause.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::checker::room::{Verdict, check};
use crate::cluster::Cluster;
use crate::history::{DRAIN, Entry, History, Kind, Process, READ, SEND};
use crate::http::{Answer, Call, NoAnswer, encoded};
use crate::wait::eventually;

/// Messages in a page of a read under load; drains take the most the contract allows.
const PAGE: u64 = 20;
const DRAIN_PAGE: u64 = 500;
/// From the end of the faults until every node shows the same rooms.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// A cluster, the rooms in use, and what has been asked and answered.
#[derive(Debug)]
pub struct Chat {
    pub cluster: Arc<Cluster>,
    pub history: History,
    pub(crate) rooms: Vec<String>,
    /// Makes every text unique.
    texts: AtomicU64,
    acknowledged: AtomicU64,
    /// When each acknowledgement arrived, for the longest gap. Held for one push.
    acknowledged_at: Mutex<Vec<Instant>>,
    reads: AtomicU64,
}

/// How one send ended.
#[derive(Debug)]
pub enum Sent {
    Committed {
        seq: u64,
        position: String,
    },
    /// Certainly not applied.
    Refused(Answer),
    /// It may have been applied.
    Unknown(String),
    /// The node was not reached.
    NotSent(String),
}

impl Chat {
    /// Makes the rooms and a chat over them.
    pub async fn begin(cluster: Arc<Cluster>, rooms: &[&str]) -> Result<Arc<Self>> {
        let first = *cluster.ids().first().context("a cluster has nodes")?;
        for room in rooms {
            cluster.create_room(first, room).await?;
        }
        let history = History::to_file(&cluster.folder().join("history.jsonl"))?;
        Ok(Arc::new(Self {
            cluster,
            history,
            rooms: rooms.iter().map(|room| (*room).to_owned()).collect(),
            texts: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            acknowledged_at: Mutex::new(Vec::new()),
            reads: AtomicU64::new(0),
        }))
    }

    /// Messages acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Linearizable reads answered so far.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Waits until this many more messages have been acknowledged.
    pub async fn wait_acknowledged(&self, more: u64, within: Duration) -> Result<()> {
        let goal = self.acknowledged() + more;
        eventually("writes are acknowledged", within, async || {
            let now = self.acknowledged();
            if now >= goal {
                Ok(())
            } else {
                Err(format!("{now} of {goal}"))
            }
        })
        .await
    }

    /// The longest time without an acknowledgement between `from` and the last one.
    pub fn longest_gap(&self, from: Instant) -> Duration {
        let mut times = self
            .acknowledged_at
            .lock()
            .expect("no holder of this lock panics")
            .clone();
        times.retain(|time| *time >= from);
        times.push(from);
        times.sort();
        let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
        gaps.max().unwrap_or_default()
    }

    /// Sends a message with a text of its own to the room through the node, once.
    pub async fn send(&self, process: Process, node: u64, room: &str, timeout: Duration) -> Sent {
        let text = format!("m{}", self.texts.fetch_add(1, Ordering::Relaxed));
        let named = |entry: Entry| Entry {
            key: Some(room.to_owned()),
            node: Some(node),
            ..entry
        };
        let begun = named(Entry {
            value: Some(json!(text)),
            ..Entry::default()
        });
        self.history.record(process, Kind::Invoke, SEND, begun);
        let call = Call::post(messages(room), &json!({ "text": text, "client_id": text })).timeout(timeout);
        let sent = sort_out(self.cluster.send(node, call).await);
        let (kind, entry) = match &sent {
            Sent::Committed { seq, .. } => (
                Kind::Ok,
                Entry {
                    seq: Some(*seq),
                    ..Entry::default()
                },
            ),
            Sent::Refused(answer) => (
                Kind::Fail,
                Entry {
                    error: Some(answer.to_string()),
                    ..Entry::default()
                },
            ),
            Sent::NotSent(error) => (
                Kind::Fail,
                Entry {
                    error: Some(error.clone()),
                    ..Entry::default()
                },
            ),
            Sent::Unknown(error) => (
                Kind::Info,
                Entry {
                    error: Some(error.clone()),
                    ..Entry::default()
                },
            ),
        };
        self.history.record(process, kind, SEND, named(entry));
        if let Sent::Committed { .. } = sent {
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
            self.acknowledged_at
                .lock()
                .expect("no holder of this lock panics")
                .push(Instant::now());
        }
        sent
    }

    /// Reads the newest page of the room on the node, linearizably. An answer without a page, or
    /// none, says nothing about the room: it is handed back and noted as failed.
    pub async fn read(&self, process: Process, node: u64, room: &str, timeout: Duration) -> Result<Answer, NoAnswer> {
        let named = |entry: Entry| Entry {
            key: Some(room.to_owned()),
            node: Some(node),
            ..entry
        };
        self.history
            .record(process, Kind::Invoke, READ, named(Entry::default()));
        let call = Call::get(format!("{}?limit={PAGE}", messages(room))).timeout(timeout);
        let answer = self.cluster.send(node, call).await;
        let page = answer.as_ref().ok().filter(|answer| answer.status == 200).map(page_of);
        match &page {
            Some(Ok((page, last_seq))) => {
                let entry = Entry {
                    value: Some(json!(page)),
                    seq: Some(*last_seq),
                    ..Entry::default()
                };
                self.history.record(process, Kind::Ok, READ, named(entry));
                self.reads.fetch_add(1, Ordering::Relaxed);
            }
            // A page that cannot be read is the test's to see.
            Some(Err(error)) => panic!("node {node} answers a page that is none: {error:#}"),
            None => {
                let error = match &answer {
                    Ok(answer) => answer.to_string(),
                    Err(error) => error.to_string(),
                };
                self.history.record(
                    process,
                    Kind::Fail,
                    READ,
                    named(Entry {
                        error: Some(error),
                        ..Entry::default()
                    }),
                );
            }
        }
        answer
    }

    /// Reads every room whole from every node, once each has caught up with the others, lets the
    /// checker judge, and has the nodes compare the hashes of all that they have. Fails on any violation.
    pub async fn judge(&self) -> Result<Verdict> {
        let nodes = self.cluster.ids();
        let first = *nodes.first().context("a cluster has nodes")?;
        let whole = eventually("a linearizable read is answered", DRAIN_TIMEOUT, async || {
            let answer = self
                .cluster
                .send(first, Call::get("/v1/rooms"))
                .await
                .map_err(|error| error.to_string())?;
            answer
                .expect_status(200)
                .and_then(|answer| answer.position())
                .map_err(|error| error.to_string())
        });
        let position = whole.await?;
        for room in &self.rooms {
            for node in &nodes {
                self.drain(*node, room, &position)
                    .await
                    .with_context(|| format!("draining {room} from node {node}"))?;
            }
        }
        let mut sum = Verdict::default();
        for (room, verdict) in check(&self.history.events())? {
            ensure!(verdict.violations.is_empty(), "room {room}: {verdict}");
            sum.add(&verdict);
        }
        self.cluster.verify().await?;
        println!("{sum}");
        Ok(sum)
    }

    async fn drain(&self, node: u64, room: &str, position: &str) -> Result<()> {
        let process = self.history.new_client();
        let key = Some(room.to_owned());
        self.history.record(
            process,
            Kind::Invoke,
            DRAIN,
            Entry {
                key: key.clone(),
                ..Entry::default()
            },
        );
        let entries = whole_room(&self.cluster, node, room, position).await?;
        let value = Some(json!(entries));
        let entry = Entry {
            key,
            value,
            node: Some(node),
            ..Entry::default()
        };
        self.history.record(process, Kind::Ok, DRAIN, entry);
        Ok(())
    }
}

/// Every message of the room as this node has it, once it reflects the position: (seq, text).
pub async fn whole_room(cluster: &Cluster, node: u64, room: &str, position: &str) -> Result<Vec<(u64, String)>> {
    let mut entries: Vec<(u64, String)> = Vec::new();
    loop {
        let after = entries.last().map_or(0, |(seq, _)| *seq);
        let path = format!("{}?level=local&after={after}&limit={DRAIN_PAGE}", messages(room));
        let call = Call::get(path).min_position(position).timeout(DRAIN_TIMEOUT);
        let answer = cluster.expect(node, call, 200).await?;
        let (page, _) = page_of(&answer)?;
        let more = answer
            .json()?
            .get("more_after")
            .and_then(Value::as_bool)
            .context("a page without more_after")?;
        ensure!(
            !more || !page.is_empty(),
            "an empty page that says there is more: {answer}"
        );
        entries.extend(page);
        if !more {
            return Ok(entries);
        }
    }
}

/// The path of a room's messages.
pub fn messages(room: &str) -> String {
    format!("/v1/rooms/{}/messages", encoded(room))
}

/// Adds messages of so many bytes in all, give or take a batch, with texts that no compressor makes
/// much smaller. `seed` is not 0; another one makes other texts.
pub async fn fill(cluster: &Cluster, via: u64, room: &str, bytes: u64, seed: u64) -> Result<()> {
    const TEXT_BYTES: u64 = 4 << 10;
    const BATCH: u64 = 64;
    let mut state = seed;
    let mut text = || {
        let mut text = String::new();
        while (text.len() as u64) < TEXT_BYTES {
            // Marsaglia's xorshift: the same noise in each run.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            text.extend(state.to_be_bytes().map(|byte| char::from(b' ' + byte % 95)));
        }
        json!({ "text": text })
    };
    for _ in 0..bytes / (TEXT_BYTES * BATCH) {
        let batch: Vec<Value> = (0..BATCH).map(|_| text()).collect();
        let call = Call::post(format!("{}/batch", messages(room)), &json!({ "messages": batch }));
        cluster.expect(via, call, 201).await?;
    }
    Ok(())
}

/// Seqs and texts of a page, and its `last_seq`.
pub fn page_of(answer: &Answer) -> Result<(Vec<(u64, String)>, u64)> {
    let json = answer.json()?;
    let shown = json
        .get("messages")
        .and_then(Value::as_array)
        .context("a page without messages")?;
    let entry = |message: &Value| {
        let seq = message
            .get("seq")
            .and_then(Value::as_u64)
            .context("a message without seq")?;
        let text = message
            .get("text")
            .and_then(Value::as_str)
            .context("a message without text")?;
        Ok((seq, text.to_owned()))
    };
    let page: Vec<(u64, String)> = shown.iter().map(entry).collect::<Result<_>>()?;
    let last_seq = json
        .get("last_seq")
        .and_then(Value::as_u64)
        .context("a page without last_seq")?;
    Ok((page, last_seq))
}

/// What an answer to a write means, by the contract: `outcome` decides, and anything that cannot
/// be understood may have happened.
fn sort_out(answer: Result<Answer, NoAnswer>) -> Sent {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error @ NoAnswer::NotSent(_)) => return Sent::NotSent(error.to_string()),
        Err(error @ NoAnswer::Unknown(_)) => return Sent::Unknown(error.to_string()),
    };
    let json = answer.json().unwrap_or_default();
    let seq = json.get("seq").and_then(Value::as_u64);
    match (answer.status, seq, json.get("outcome").and_then(Value::as_str)) {
        (201, Some(seq), _) => match answer.position() {
            Ok(position) => Sent::Committed { seq, position },
            Err(error) => Sent::Unknown(format!("{error:#}")),
        },
        (_, _, Some("not_applied")) => Sent::Refused(answer),
        _ => Sent::Unknown(answer.to_string()),
    }
}

/// The seqs of a stream or a listing, each exactly once and in order from 1 to `last`.
pub fn each_once(seqs: &[u64], last: u64) -> Result<()> {
    let mut seen = HashSet::new();
    for (place, seq) in seqs.iter().enumerate() {
        if !seen.insert(*seq) {
            bail!("seq {seq} came twice (place {place})");
        }
        ensure!(
            *seq == place as u64 + 1,
            "expected seq {} at place {place}, got {seq}",
            place + 1
        );
    }
    ensure!(
        seqs.len() as u64 == last,
        "{} messages came, {last} were sent",
        seqs.len()
    );
    Ok(())
}
