//! `quorate bench send` and `batch`.

use std::sync::Arc;

use clap::ValueEnum;
use quorate_bench::Report;
use quorate_bench::quorate::{Batches, Door, Sends, Sockets};
use serde::Serialize;

use super::flags::{Common, Http, count};
use super::workload::{Scene, Workload};
use crate::cli::exit::Failure;

/// Clients of one WebSocket, where the line does not say how many of these there are.
const SOCKET_CLIENTS: u64 = 16;

/// How messages are sent.
#[derive(Debug, Clone, clap::Args, Serialize)]
struct Sending {
    /// With an idempotency key each, as the client library sends them
    #[arg(long)]
    keyed: bool,
    /// A request of HTTP each, or many at a time over WebSockets: the clients share --connections of them
    /// [ws: one for 16 clients]
    #[arg(long, value_enum, default_value_t = Over::Http)]
    over: Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Over {
    Http,
    Ws,
}

impl Sending {
    fn check(&self, common: &Common) -> Result<(), Failure> {
        match self.over == Over::Ws && common.aim.http == Http::Two {
            true => Err(Failure::Usage(
                "a WebSocket begins as HTTP/1.1: leave --http out".into(),
            )),
            false => Ok(()),
        }
    }

    fn door(&self, common: &Common, scene: &Scene) -> Door {
        match self.over {
            Over::Http => Door::Http(scene.http.clone()),
            Over::Ws => {
                let clients = scene.plan.load.clients() as u64;
                let sockets = common.aim.connections.unwrap_or(clients.div_ceil(SOCKET_CLIENTS));
                Door::Sockets(Arc::new(Sockets::new(&scene.http, &scene.stage, sockets as usize)))
            }
        }
    }
}

const SEND_EXAMPLES: &str = "Examples:
  quorate bench send --clients 1
  quorate bench send --clients 256 --rooms 1000 --message-bytes 64 --cleanup
  quorate bench send --over ws --connections 64 --clients 1024       16 in flight on each WebSocket
  quorate bench send --rate 3000 --duration 5m --nodes leader";

#[derive(Debug, clap::Args, Serialize)]
#[command(after_help = SEND_EXAMPLES)]
pub(crate) struct Send {
    #[command(flatten)]
    #[serde(flatten)]
    sending: Sending,
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) common: Common,
}

impl Workload for Send {
    const NAME: &'static str = "send";
    const UNITS: &'static str = "messages";
    type Outcome = Report;

    fn common(&self) -> &Common {
        &self.common
    }

    fn check(&self) -> Result<(), Failure> {
        self.sending.check(&self.common)
    }

    async fn work(&self, scene: Scene) -> Result<Report, Failure> {
        let door = self.sending.door(&self.common, &scene);
        let sends = Sends::new(door, scene.stage.clone(), self.sending.keyed);
        scene.drive(sends).await
    }
}

const BATCH_EXAMPLES: &str = "Examples:
  quorate bench batch --size 100 --clients 8
  quorate bench batch --size 100 --clients 16 --over ws
  quorate bench batch --size 1000 --clients 4 --message-bytes 1024 --cleanup";

#[derive(Debug, clap::Args, Serialize)]
#[command(after_help = BATCH_EXAMPLES)]
pub(crate) struct Batch {
    /// Messages of a batch
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = count(1000))]
    size: u64,
    #[command(flatten)]
    #[serde(flatten)]
    sending: Sending,
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) common: Common,
}

impl Workload for Batch {
    const NAME: &'static str = "batch";
    const UNITS: &'static str = "messages";
    type Outcome = Report;

    fn common(&self) -> &Common {
        &self.common
    }

    fn check(&self) -> Result<(), Failure> {
        self.sending.check(&self.common)
    }

    async fn work(&self, scene: Scene) -> Result<Report, Failure> {
        let door = self.sending.door(&self.common, &scene);
        let batches = Batches::new(door, scene.stage.clone(), self.sending.keyed, self.size);
        scene.drive(batches).await
    }
}
