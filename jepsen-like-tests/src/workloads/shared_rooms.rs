//! A workload whose clients share rooms: what it writes is its own, everything else stands here.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use rand::RngExt;
use serde_json::json;

use super::asking::{Client, Reply};
use super::rooms::{LANES, Rooms};
use super::{Stage, Workload};
use crate::checker::{Checker, room};
use crate::history::{Entry, Kind, READ};
use crate::http::Call;
use crate::workload::{messages, page_of};

/// Between two operations, so that the clients of all workloads leave time to the nodes on the same machine.
const THINK: Duration = Duration::from_millis(3);
/// A read shows at most so many messages: few, for they all go into the history.
const PAGE_MAX: u64 = 6;

/// What clients do in a room.
#[async_trait]
pub(super) trait Writes: Send + Sync + 'static {
    /// As the workload is named; its rooms' names begin with it.
    fn name(&self) -> &'static str;

    fn about(&self) -> &'static str;

    /// One in so many operations reads; zero: none does.
    fn reads(&self) -> u32;

    /// Writes something. Answers with the last seq of it, if that is known.
    async fn write(&self, client: &mut Client, room: &str) -> Result<Option<u64>>;
}

pub(super) struct SharedRooms<W> {
    writes: Arc<W>,
    rooms: Arc<Rooms>,
}

impl<W: Writes> SharedRooms<W> {
    pub(super) fn new(writes: W) -> Self {
        Self {
            rooms: Rooms::new(writes.name()),
            writes: Arc::new(writes),
        }
    }
}

#[async_trait]
impl<W: Writes> Workload for SharedRooms<W> {
    fn name(&self) -> &'static str {
        self.writes.name()
    }

    fn about(&self) -> &'static str {
        self.writes.about()
    }

    async fn prepare(&self, stage: &Arc<Stage>) -> Result<()> {
        self.rooms.prepare(stage).await
    }

    fn clients(&self, stage: &Arc<Stage>) -> Vec<BoxFuture<'static, Result<()>>> {
        let client = |number| {
            let client = Client::new(stage, self.name(), number);
            work(client, self.writes.clone(), self.rooms.clone()).boxed()
        };
        (0..stage.clients).map(client).collect()
    }

    async fn drain(&self, stage: &Arc<Stage>) -> Result<()> {
        self.rooms.drain(stage).await
    }

    fn checkers(&self) -> Vec<Box<dyn Checker>> {
        vec![Box::new(room::Rooms)]
    }
}

async fn work(mut client: Client, writes: Arc<impl Writes>, rooms: Arc<Rooms>) -> Result<()> {
    while !client.is_stopping() {
        let lane = client.dice.random_range(0..LANES);
        let room = rooms.room(lane);
        if writes.reads() > 0 && client.dice.random_ratio(1, writes.reads()) {
            read(&mut client, &room).await?;
        } else if let Some(seq) = writes.write(&mut client, &room).await? {
            rooms.turn(&mut client, lane, &room, seq).await?;
        }
        tokio::time::sleep(THINK).await;
    }
    Ok(())
}

/// Reads the newest page of the room.
async fn read(client: &mut Client, room: &str) -> Result<()> {
    let node = client.node();
    let limit = client.dice.random_range(1..=PAGE_MAX);
    let entry = Entry::of(room, node);
    client.record(Kind::Invoke, READ, entry.clone());
    let call = Call::get(format!("{}?limit={limit}", messages(room)));
    match client.ask(node, call).await? {
        Reply::Decided(answer) => {
            let level = answer.header("X-Quorate-Level");
            ensure!(
                level == Some("linearizable"),
                "node {node} served a linearizable read as {level:?}: {answer}"
            );
            let (page, seq) = page_of(&answer)?;
            let (value, seq) = (Some(json!(page)), Some(seq));
            client.record(Kind::Ok, READ, Entry { value, seq, ..entry });
        }
        Reply::NotApplied(error) | Reply::Unknown(error) => {
            // A read that was not answered has done nothing.
            client.record_failure(READ, room, Reply::NotApplied(error));
            client.back_off().await;
        }
    }
    Ok(())
}
