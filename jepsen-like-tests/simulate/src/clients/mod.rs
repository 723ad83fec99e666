//! What the clients of a simulated node do, and the history of it. They ask the node as the HTTP interface does,
//! by its `Replica`. Their histories have the shapes that torture's checkers know.

mod locks;
mod rooms;
mod stage;
mod streams;

use std::sync::Arc;
use std::time::Duration;

use quorate_api::replica::{Level, ReadOptions, Replica, ReplicaError, WriteOptions};
use quorate_state_machine::query::{Answer, QueryBody};
use quorate_state_machine::{
    Caller, Command, Conditions, Envelope, Idempotency, Outcome, Query, Rejection, RoomKind, SpaceId,
};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

pub(crate) use self::rooms::{ROOMS, whole_room};
pub(crate) use self::stage::Stage;
pub(crate) use self::streams::ROOM as STREAM_ROOM;
use crate::node::Core;

/// Between two operations of a client, at most.
const THINK_MS_MAX: u64 = 40;
/// After it a write is given up with an unknown outcome, or known not to have happened.
const PATIENCE: Duration = Duration::from_secs(2);

/// One client, as long as its node runs and the stage is not stopped. What it does follows from its number.
pub(crate) async fn work(stage: Arc<Stage>, core: Core, mut dice: ChaCha8Rng, number: u64) {
    if number == 0 {
        make_rooms(&stage, &core).await;
    }
    while !stage.is_stopping() {
        tokio::time::sleep(Duration::from_millis(dice.random_range(1..=THINK_MS_MAX))).await;
        match number {
            0 | 1 => rooms::step(&stage, &core, &mut dice).await,
            2 => locks::step(&stage, &core, &mut dice).await,
            _ => streams::step(&stage, &core, &mut dice).await,
        }
    }
}

/// Of each kind at least one: the numbers of a node's clients.
pub(crate) const CLIENTS: u64 = 4;

/// Whoever is first makes them.
async fn make_rooms(stage: &Stage, core: &Core) {
    for room in ROOMS.into_iter().chain([STREAM_ROOM]) {
        let command = Command::CreateRoom {
            room: room.to_owned(),
            kind: RoomKind::Public,
            title: None,
            members: Vec::new(),
            attributes: None,
        };
        while write(stage, core, command.clone(), None).await.is_err() {
            tokio::time::sleep(Duration::from_millis(THINK_MS_MAX)).await;
        }
    }
}

async fn write(
    stage: &Stage,
    core: &Core,
    command: Command,
    idempotency: Option<Idempotency>,
) -> Result<Outcome, ReplicaError> {
    let envelope = Envelope {
        space: SpaceId::MAIN,
        caller: Caller::Root,
        request_id: "simulation".to_owned(),
        idempotency,
        conditions: Conditions::default(),
        command,
    };
    let options = WriteOptions {
        deadline: deadline(),
        redirect: false,
    };
    let written = core.write(envelope, options).await?;
    stage.count_write();
    Ok(written.outcome)
}

async fn read(
    stage: &Stage,
    core: &Core,
    body: QueryBody,
    level: Level,
) -> Result<Result<Answer, Rejection>, ReplicaError> {
    let options = ReadOptions {
        deadline: deadline(),
        level,
        min_position: None,
    };
    let answered = core.read(query(body), options).await?;
    stage.count_read();
    Ok(answered.answer)
}

fn query(body: QueryBody) -> Query {
    Query {
        space: SpaceId::MAIN,
        caller: Caller::Root,
        body,
    }
}

fn deadline() -> std::time::Instant {
    (tokio::time::Instant::now() + PATIENCE).into_std()
}
