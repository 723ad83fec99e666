//! `quorate bench failover`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result as Anyhow, ensure};
use quorate_bench::Live;
use quorate_bench::quorate::{self, Disturber, FailoverReport, ROUNDS_MAX, Round};
use quorate_client::Client;
use serde::Serialize;
use tokio::process::Command;

use super::flags::{Aim, Rooms, count, parse_rate, seconds};
use super::progress::{Progress, say};
use super::setting::{Printed, Setting, client_failure};
use crate::cli::exit::Failure;
use crate::cli::output::Output;
use crate::cli::{Global, parse_time};

/// What the commands are told: the id of the node that led when the round began.
const LEADER: &str = "QUORATE_BENCH_LEADER";
/// A command has so long.
const COMMAND_WITHIN: Duration = Duration::from_secs(60);
/// Requests that may be under way, for the bound of connections.
const AT_ONCE: usize = 4096;

const EXAMPLES: &str = r#"Examples:
  quorate bench failover --transfer --rounds 20
  quorate bench failover --rounds 20 \
      --kill-command    'cluster-scripts/cluster kill    $QUORATE_BENCH_LEADER -9 --dir /tmp/tour' \
      --restart-command 'cluster-scripts/cluster restart $QUORATE_BENCH_LEADER    --dir /tmp/tour'

Messages are due at --rate, to each node in turn. In each round the leader is made to go, by a hand-over
(--transfer) or by a command of yours (run by sh, with the leader's id in QUORATE_BENCH_LEADER); then the
cluster is made whole again. A round's gap is the longest time in which nobody's message was
acknowledged. At the end all rooms are read: what was acknowledged and is not there is an error."#;

#[derive(Debug, clap::Args, Serialize)]
#[command(after_help = EXAMPLES)]
#[command(group = clap::ArgGroup::new("how").required(true))]
pub(crate) struct Failover {
    /// Have the leader hand over (POST /v1/cluster/transfer)
    #[arg(long, group = "how")]
    transfer: bool,
    /// What makes the leader go: it kills, stops or pauses the node of that id
    #[arg(long, value_name = "COMMAND", group = "how")]
    kill_command: Option<String>,
    /// What brings it back; without it the node must come back by itself
    #[arg(long, value_name = "COMMAND", requires = "kill_command", conflicts_with = "transfer")]
    restart_command: Option<String>,
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = count(ROUNDS_MAX))]
    rounds: u64,
    /// Messages a second, at least 10: two of them are what a gap can be told by
    #[arg(long, value_name = "PER-SECOND", default_value_t = 500.0, value_parser = parse_rate)]
    rate: f64,
    /// Nothing is disturbed for so long before each round, after the new leader came, and after the old one is back
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_time)]
    #[serde(serialize_with = "seconds")]
    calm: Duration,
    /// Within this time somebody must lead again, and all nodes be ready again
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_time)]
    #[serde(serialize_with = "seconds")]
    recover_within: Duration,
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) rooms: Rooms,
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) aim: Aim,
}

impl Failover {
    pub(super) async fn run(self, global: &Global, output: &Output) -> Result<(), Failure> {
        if self.rate < 10.0 {
            return Err(Failure::Usage("--rate: at least 10 a second".into()));
        }
        self.rooms
            .check_bytes("so that every message can be told from all others")?;
        let setting = Setting::new(&self.aim, AT_ONCE, global).await?;
        let stage = setting.stage(&self.rooms, 0).await?;
        let disturber = self.disturber(&setting.client);
        let live = Arc::new(Live::default());
        let failover = quorate::Failover {
            http: setting.http.clone(),
            stage: stage.clone(),
            rounds: self.rounds as usize,
            per_second: self.rate,
            calm: self.calm,
            recover_within: self.recover_within,
            answer_within: global.answer_within(),
        };
        let report = {
            let _progress = Progress::new(live.clone(), "messages", None);
            let rounds = self.rounds;
            let told = |round: &Round, number: usize| {
                say(&format!(
                    "round {number} of {rounds}: node {} led, then node {}; gap {:.1} ms",
                    round.leader_before, round.leader_after, round.gap_ms
                ));
            };
            failover.run(&disturber, live, told).await.map_err(client_failure)?
        };
        let printed = Printed {
            workload: "failover",
            settings: setting.settings(&self),
            report: &report,
            left: setting.leave(&stage, self.rooms.cleanup).await?,
        };
        let header = ["round", "led", "leads", "gap ms", "gap of return ms", "terms"];
        printed.print(&header, rows(&report), &remarks(&report), output)?;
        match report.lost {
            0 => Ok(()),
            lost => Err(Failure::No(
                500,
                "not_as_acknowledged",
                format!("{lost} acknowledged messages are lost: see above"),
            )),
        }
    }

    fn disturber(&self, client: &Client) -> How {
        match &self.kill_command {
            Some(kill) => How::Commands {
                kill: kill.clone(),
                restart: self.restart_command.clone(),
            },
            None => How::Transfer(client.clone()),
        }
    }
}

/// How the leader is made to go.
enum How {
    Transfer(Client),
    Commands { kill: String, restart: Option<String> },
}

impl Disturber for How {
    async fn disturb(&self, leader: u64) -> Anyhow<()> {
        match self {
            How::Transfer(client) => {
                let now = client.transfer(None).await.context("the hand-over failed")?;
                ensure!(now != leader, "node {leader} leads still");
                Ok(())
            }
            How::Commands { kill, .. } => shell(kill, leader).await,
        }
    }

    async fn mend(&self, leader: u64) -> Anyhow<()> {
        match self {
            How::Commands {
                restart: Some(restart), ..
            } => shell(restart, leader).await,
            _ => Ok(()),
        }
    }
}

/// Runs the user's command; what it prints goes to standard error, where all that is no answer is.
async fn shell(command: &str, leader: u64) -> Anyhow<()> {
    let began = Instant::now();
    let mut child = Command::new("sh")
        .args(["-c", command])
        .env(LEADER, leader.to_string())
        .stdin(std::process::Stdio::null())
        .stdout(std::io::stderr())
        .kill_on_drop(true)
        .spawn()
        .context("failed to start sh")?;
    let status = tokio::time::timeout(COMMAND_WITHIN, child.wait()).await;
    let status = status.with_context(|| format!("`{command}` still runs after {:?}", began.elapsed()))??;
    ensure!(status.success(), "`{command}` ended with {status}");
    Ok(())
}

fn rows(report: &FailoverReport) -> Vec<Vec<String>> {
    let row = |(number, round): (usize, &Round)| {
        vec![
            (number + 1).to_string(),
            round.leader_before.to_string(),
            round.leader_after.to_string(),
            format!("{:.1}", round.gap_ms),
            format!("{:.1}", round.mend_gap_ms),
            round.terms.to_string(),
        ]
    };
    report.rounds.iter().enumerate().map(row).collect()
}

fn remarks(report: &FailoverReport) -> Vec<String> {
    let codes: Vec<String> = report.errors.iter().map(|(code, n)| format!("{code} {n}")).collect();
    let errors = if codes.is_empty() {
        "none".to_owned()
    } else {
        codes.join(", ")
    };
    let mut lines = vec![
        format!(
            "gap: median {:.1} ms, max {:.1} ms; {:.1} ms at most while nothing was disturbed",
            report.median_gap_ms, report.max_gap_ms, report.calm_gap_ms
        ),
        format!(
            "acknowledged: {}, of which {} are lost; {} are there without an answer",
            report.acknowledged, report.lost, report.unacknowledged
        ),
        format!("errors: {errors}; not started: {}", report.not_started),
    ];
    lines.extend(report.told.iter().map(|what| format!("  {what}")));
    lines
}
