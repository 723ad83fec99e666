//! The flags that workloads share: whom they ask, what rooms they make, how hard and for how long.

use std::time::Duration;

use clap::ValueEnum;
use quorate_bench::plan::{CLIENTS_MAX, RATE_MAX, SAMPLE_MAX};
use quorate_bench::quorate::{MEMBERS_MAX, Protocol, ROOMS_MAX};
use quorate_bench::{Load as Loop, Plan};
use serde::Serialize;

use crate::cli::exit::Failure;
use crate::cli::parse_time;

/// The contract's longest text of a message.
const MESSAGE_BYTES_MAX: u64 = 64 << 10;
/// A message's number has so many digits, which come first.
const NUMBER_BYTES: u64 = 16;
const THREADS_MAX: u64 = 256;
/// In flight at most, in the open loop, unless --clients says otherwise.
const OPEN_CLIENTS: usize = 1024;
/// Requests that are not answered for so long are dropped, unless --timeout says otherwise: longer than the time
/// after which a node itself gives up.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// What all those workloads are told that put a load on rooms.
#[derive(Debug, Clone, clap::Args, Serialize)]
pub(crate) struct Common {
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) load: Load,
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) rooms: Rooms,
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) aim: Aim,
}

#[derive(Debug, Clone, clap::Args, Serialize)]
#[command(next_help_heading = "Whom to ask")]
pub(crate) struct Aim {
    /// Which nodes are asked: those of --endpoints in turn, or that which leads, or those which follow
    #[arg(long, value_enum, default_value_t = Nodes::All)]
    pub(super) nodes: Nodes,
    /// At most so many connections: who finds all taken waits. With --http 2 so many to each node, each
    /// carrying many requests [default: one a client; with --http 2, one to each node]
    #[arg(long, value_name = "N", value_parser = count(CLIENTS_MAX))]
    pub(super) connections: Option<u64>,
    /// HTTP/1.1, or HTTP/2
    #[arg(long, value_enum, default_value_t = Http::One)]
    pub(super) http: Http,
    /// Threads of the generator. It shares the machine with whatever else runs here
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=THREADS_MAX))]
    pub(super) threads: u64,
    /// What the names of all that is made begin with
    #[arg(long, value_name = "NAME", default_value = "bench")]
    pub(super) prefix: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Nodes {
    All,
    Leader,
    Followers,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
pub(crate) enum Http {
    #[value(name = "1")]
    #[serde(rename = "1")]
    One,
    #[value(name = "2")]
    #[serde(rename = "2")]
    Two,
}

impl From<Http> for Protocol {
    fn from(http: Http) -> Self {
        match http {
            Http::One => Protocol::Http1,
            Http::Two => Protocol::Http2,
        }
    }
}

#[derive(Debug, Clone, clap::Args, Serialize)]
#[command(next_help_heading = "What is there")]
pub(crate) struct Rooms {
    /// Rooms that are made, and used evenly
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = count(ROOMS_MAX))]
    pub(super) rooms: u64,
    /// Users that are made: each is a member of each room, and clients act as them in turn. 0: all is done as
    /// root, or whoever --as says [default: 8; with --token or --as always 0]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=MEMBERS_MAX as u64))]
    pub(super) members: Option<u64>,
    /// Bytes of a message's text. The first 16 tell messages apart, when they are read back too
    #[arg(long, value_name = "BYTES", default_value_t = 256,
          value_parser = clap::value_parser!(u64).range(0..=MESSAGE_BYTES_MAX))]
    pub(super) message_bytes: u64,
    /// Delete rooms and users at the end
    #[arg(long)]
    pub(super) cleanup: bool,
}

impl Rooms {
    pub(super) fn check(&self, one_user: bool) -> Result<(), Failure> {
        match one_user && self.members.is_some_and(|members| members > 0) {
            true => Err(Failure::Usage(
                "with --token or --as all is done by one user: leave --members out".into(),
            )),
            false => Ok(()),
        }
    }

    /// For a workload whose messages say something in their first bytes.
    pub(super) fn check_bytes(&self, what_for: &str) -> Result<(), Failure> {
        match self.message_bytes < NUMBER_BYTES {
            true => Err(Failure::Usage(format!(
                "--message-bytes: at least {NUMBER_BYTES} here, {what_for}"
            ))),
            false => Ok(()),
        }
    }
}

#[derive(Debug, Clone, clap::Args, Serialize)]
#[command(next_help_heading = "How hard, and for how long")]
pub(crate) struct Load {
    /// Clients, each with one request at a time; with --rate: so many requests under way at most
    /// [default: 64; with --rate 1024]
    #[arg(long, value_name = "N", value_parser = count(CLIENTS_MAX))]
    pub(super) clients: Option<u64>,
    /// Open loop: so many requests a second are due, and each one's time counts from when it was due
    #[arg(long, value_name = "PER-SECOND", value_parser = parse_rate)]
    pub(super) rate: Option<f64>,
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) time: Time,
    /// So much of what is acknowledged is read back afterwards
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(0..=SAMPLE_MAX as u64))]
    pub(super) sample: u64,
}

#[derive(Debug, Clone, clap::Args, Serialize)]
pub(crate) struct Time {
    /// How long it is measured: 10, 2.5, 500ms or 1m
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_time)]
    #[serde(serialize_with = "seconds")]
    pub(super) duration: Duration,
    /// How long the load goes on before that
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_time_or_none)]
    #[serde(serialize_with = "seconds")]
    pub(super) warm_up: Duration,
}

impl Load {
    /// `rate` where the line has none.
    pub(super) fn plan(&self, rate: Option<f64>, answer_within: Duration) -> Result<Plan, Failure> {
        let clients = self.clients.map(|clients| clients as usize);
        let load = match self.rate.or(rate) {
            Some(per_second) => Loop::Open {
                per_second,
                in_flight: clients.unwrap_or(OPEN_CLIENTS),
            },
            None => Loop::Closed {
                clients: clients.unwrap_or(64),
            },
        };
        let plan = Plan {
            load,
            warm_up: self.time.warm_up,
            duration: self.time.duration,
            answer_within,
            sample: self.sample as usize,
        };
        plan.check().map_err(|error| Failure::Usage(error.to_string()))?;
        Ok(plan)
    }
}

/// From 1 on.
pub(super) fn count(max: usize) -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=max as u64)
}

pub(super) fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if rate > 0.0 && rate <= RATE_MAX => Ok(rate),
        _ => Err(format!(
            "expected requests a second, more than 0 and at most {RATE_MAX}"
        )),
    }
}

/// As the other times, and 0.
pub(super) fn parse_time_or_none(text: &str) -> Result<Duration, String> {
    match text {
        "0" | "0s" | "0ms" => Ok(Duration::ZERO),
        text => parse_time(text),
    }
}

pub(super) fn seconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}
