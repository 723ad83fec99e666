//! Rooms that many clients share for as long as a run lasts. When one has some thousands of messages the
//! clients move on to a new one, so that no room becomes too long to be read whole in the end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::future::join_all;
use serde_json::json;

use super::Stage;
use super::asking::{Client, Reply};
use crate::checker::operation::hash_of;
use crate::history::{DRAIN, Entry, Kind};
use crate::http::Call;
use crate::workload::whole_room;

/// From here on clients move to the next room.
const ROOM_MESSAGES: u64 = 2000;
/// Rooms in use at the same time: several clients in each, and each client in several.
pub(super) const LANES: usize = 4;
/// Until a cluster that is well answers one linearizable read.
const POSITION_TIMEOUT: Duration = Duration::from_secs(30);
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// The rooms of one workload.
#[derive(Debug)]
pub(super) struct Rooms {
    prefix: &'static str,
    lanes: [Lane; LANES],
}

/// Rooms that follow one another.
#[derive(Debug, Default)]
struct Lane {
    /// The number of the room in use.
    current: AtomicU64,
    /// One client makes the next room, the others go on meanwhile.
    turning: AtomicBool,
}

impl Rooms {
    /// Their names begin with the prefix, which no other workload has.
    pub(super) fn new(prefix: &'static str) -> Arc<Self> {
        Arc::new(Self {
            prefix,
            lanes: Default::default(),
        })
    }

    fn name(&self, lane: usize, number: u64) -> String {
        format!("{}-{lane}-{number}", self.prefix)
    }

    /// The room that is in use in the lane.
    pub(super) fn room(&self, lane: usize) -> String {
        self.name(lane, self.lanes[lane].current.load(Ordering::Acquire))
    }

    pub(super) async fn prepare(&self, stage: &Stage) -> Result<()> {
        let first = *stage.cluster.ids().first().context("a cluster has nodes")?;
        for lane in 0..LANES {
            stage.cluster.create_room(first, &self.room(lane)).await?;
        }
        Ok(())
    }

    /// Moves on from the room if it is long enough, which its last known seq says. A new room that could not
    /// be made is left to the next client.
    pub(super) async fn turn(&self, client: &mut Client, lane: usize, room: &str, seq: u64) -> Result<()> {
        let Lane { current, turning } = &self.lanes[lane];
        if seq < ROOM_MESSAGES || self.room(lane) != room || turning.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let next = current.load(Ordering::Acquire) + 1;
        let made = self.make(client, &self.name(lane, next)).await;
        // Another may have turned it between the look at the room and the flag.
        if matches!(made, Ok(true)) && self.room(lane) == room {
            current.store(next, Ordering::Release);
        }
        turning.store(false, Ordering::Release);
        made.map(drop)
    }

    /// Whether the room is there now. Asked again it is the same request, by its key.
    async fn make(&self, client: &mut Client, room: &str) -> Result<bool> {
        let body = json!({ "room": room, "kind": "public" });
        let call = Call::post("/v1/rooms", &body).key(&format!("make-{room}"));
        let node = client.node();
        Ok(matches!(client.ask(node, call).await?, Reply::Decided(answer) if answer.status == 201))
    }

    /// Every room that was ever in use.
    fn used(&self) -> Vec<String> {
        let lanes = self.lanes.iter().enumerate();
        let used = lanes.flat_map(|(lane, rooms)| {
            let last = rooms.current.load(Ordering::Acquire);
            (0..=last).map(move |number| self.name(lane, number))
        });
        used.collect()
    }

    /// Reads every room whole from every node, once each has caught up with the others.
    pub(super) async fn drain(&self, stage: &Stage) -> Result<()> {
        let nodes = stage.cluster.ids();
        let position = position(stage).await?;
        for room in self.used() {
            let mut reads = Vec::new();
            for node in &nodes {
                reads.push(whole_room(&stage.cluster, *node, &room, &position));
            }
            let mut seen: BTreeMap<u64, Vec<(u64, String)>> = BTreeMap::new();
            for (node, read) in nodes.iter().zip(join_all(reads).await) {
                let page = read.with_context(|| format!("draining {room} from node {node}"))?;
                note(stage, *node, &room, page, &mut seen);
            }
        }
        Ok(())
    }
}

/// Writes down what the node has. Only rooms that differ are written out: of five nodes that agree, one.
fn note(stage: &Stage, node: u64, room: &str, page: Vec<(u64, String)>, seen: &mut BTreeMap<u64, Vec<(u64, String)>>) {
    let process = stage.history.new_client();
    let key = Some(room.to_owned());
    let begun = Entry {
        key: key.clone(),
        ..Entry::default()
    };
    stage.history.record(process, Kind::Invoke, DRAIN, begun);
    let same = seen.iter().find(|(_, other)| **other == page).map(|(node, _)| *node);
    let value = match same {
        Some(same_as) => {
            let hash = hash_of(page.iter().map(|(seq, text)| (*seq, text.as_str())));
            json!({ "same_as": same_as, "hash": hash })
        }
        None => json!(page),
    };
    let entry = Entry {
        key,
        value: Some(value),
        node: Some(node),
        ..Entry::default()
    };
    stage.history.record(process, Kind::Ok, DRAIN, entry);
    if same.is_none() {
        seen.insert(node, page);
    }
}

/// A position that reflects everything that was acknowledged.
async fn position(stage: &Stage) -> Result<String> {
    let first = *stage.cluster.ids().first().context("a cluster has nodes")?;
    let until = Instant::now() + POSITION_TIMEOUT;
    let answer = loop {
        let answer = stage.cluster.send(first, Call::get("/v1/rooms?limit=1")).await;
        match answer {
            Ok(answer) if answer.status == 200 => break answer,
            other if Instant::now() > until => bail!("no linearizable read is answered: {other:?}"),
            _ => tokio::time::sleep(AGAIN_AFTER).await,
        }
    };
    let level = answer.header("X-Quorate-Level");
    ensure!(level == Some("linearizable"), "a read of level {level:?}: {answer}");
    answer.position()
}
