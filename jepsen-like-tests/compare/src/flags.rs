//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::subject::Subject;
use crate::work::Work;

const ROUNDS_MAX: u64 = 1000;
/// Threads of the generator.
const THREADS_MAX: u64 = 64;
/// Rooms, keys' prefixes and subjects that writes are spread over.
const ROOMS_MAX: u64 = 1000;

const EXAMPLES: &str = "Examples:
  compare                                              all of it: some 20 minutes
  compare --rounds 1 --duration 2s                     a first look
  compare --only quorate,bare --work write-64,write-256
  compare --out figures                                figures/compare.json and figures/compare.md

etcd and nats-server must be installed (cluster-scripts/compare installs them), unless --only leaves them
out. Nothing else should run on the machine meanwhile. Ctrl-C ends all servers; what the finished rounds
gave is in --out.

Exit codes: 0 done, whether targets were reached or not; 1 something that was acknowledged did not hold;
2 it could not be done.";

#[derive(Debug, Parser)]
#[command(
    name = "compare",
    version,
    about = "Quorate, etcd, NATS JetStream and a bare HTTP handler under the same work, from the same generator",
    after_help = EXAMPLES,
    args_conflicts_with_subcommands = true
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) run: Run,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The bare handler, as `compare` starts it: one file, synced by batches, behind HTTP
    Bare(Bare),
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Each system has its turn so many times; medians are of the rounds
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=ROUNDS_MAX))]
    pub(crate) rounds: u64,
    /// How long each work is measured: 8, 2.5, 500ms or 1m
    #[arg(long, value_name = "TIME", default_value = "8s", value_parser = parse_time)]
    pub(crate) duration: Duration,
    /// How long its load goes on before that
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_time)]
    pub(crate) warm_up: Duration,
    /// Only these systems
    #[arg(long, value_name = "SYSTEM,…", value_enum, value_delimiter = ',')]
    pub(crate) only: Vec<Subject>,
    /// Only this work
    #[arg(long, value_name = "WORK,…", value_enum, value_delimiter = ',')]
    pub(crate) work: Vec<Work>,
    /// Rooms (etcd: prefixes of keys; JetStream: subjects of one stream) that writes and reads are spread over
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=ROOMS_MAX))]
    pub(crate) rooms: u64,
    /// So much of what is acknowledged in each work and round is read back
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub(crate) sample: u64,
    /// Threads of the generator, which shares the machine with the servers
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = threads)]
    pub(crate) threads: usize,
    /// Writes compare.json and compare.md into this directory, anew after each round
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Where the servers' directories are made, all on the same disk
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    pub(crate) dir: PathBuf,
    /// [default: the `quorate` beside this program]
    #[arg(long, value_name = "FILE", env = "QUORATE_BIN")]
    pub(crate) quorate: Option<PathBuf>,
    /// [default: the `etcd` of the PATH]
    #[arg(long, value_name = "FILE", env = "COMPARE_ETCD")]
    pub(crate) etcd: Option<PathBuf>,
    /// [default: the `nats-server` of the PATH]
    #[arg(long, value_name = "FILE", env = "COMPARE_NATS")]
    pub(crate) nats: Option<PathBuf>,
    /// What was built, for the report
    #[arg(long, value_name = "TEXT", env = "COMPARE_COMMIT")]
    pub(crate) commit: Option<String>,
}

impl Run {
    /// In the order of their turns.
    pub(crate) fn subjects(&self) -> Vec<Subject> {
        let all = Subject::ALL.into_iter();
        all.filter(|subject| self.only.is_empty() || self.only.contains(subject))
            .collect()
    }

    /// What this subject is to do, in order.
    pub(crate) fn works(&self, subject: Subject) -> Vec<Work> {
        let all = Work::ALL.into_iter().filter(|work| subject.does(*work));
        all.filter(|work| self.work.is_empty() || self.work.contains(work))
            .collect()
    }
}

#[derive(Debug, Args)]
pub(crate) struct Bare {
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) listen: SocketAddr,
    /// What is sent goes to the end of this file
    #[arg(long, value_name = "FILE")]
    pub(crate) journal: PathBuf,
    /// What it answers: made by `compare` from the answers of a real cluster
    #[arg(long, value_name = "FILE")]
    pub(crate) answers: PathBuf,
}

fn threads(text: &str) -> Result<usize, String> {
    match text.parse::<u64>() {
        Ok(threads) if (1..=THREADS_MAX).contains(&threads) => Ok(threads as usize),
        _ => Err(format!("expected from 1 to {THREADS_MAX}")),
    }
}

/// As `quorate bench` has it.
fn parse_time(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.find(|c: char| !c.is_ascii_digit() && c != '.') {
        Some(at) => text.split_at(at),
        None => (text, "s"),
    };
    let scale = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        _ => return Err("expected a time such as 8, 2.5, 500ms or 1m".into()),
    };
    match number.parse::<f64>() {
        Ok(number) if (0.001..=3600.0).contains(&(number * scale)) => Ok(Duration::from_secs_f64(number * scale)),
        _ => Err("expected between 1 ms and an hour".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str) -> Result<Run, String> {
        let words = ["compare"].into_iter().chain(line.split_whitespace());
        Cli::try_parse_from(words)
            .map(|cli| cli.run)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn everybody_does_all_that_he_can_unless_the_line_says_less() {
        let flags = run("").expect("no flag is needed");
        assert_eq!(flags.subjects(), Subject::ALL);
        assert_eq!(flags.works(Subject::Quorate), Work::ALL);
        assert!(!flags.works(Subject::Nats).contains(&Work::ReadOne));
        let flags = run("--only etcd,quorate --work read-one,write-64 --duration 500ms").expect("a line");
        assert_eq!(flags.subjects(), [Subject::Quorate, Subject::Etcd]);
        assert_eq!(flags.works(Subject::Etcd), [Work::Write64, Work::ReadOne]);
        assert_eq!(flags.duration, Duration::from_millis(500));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for line in [
            "--rounds 0",
            "--duration 0",
            "--duration 2h",
            "--duration soon",
            "--only redis",
            "--work sing",
            "--threads 0",
            "--rooms 0",
            "bare",
            "--rounds 2 bare --listen 127.0.0.1:1 --journal a --answers b",
        ] {
            assert!(run(line).is_err(), "{line}");
        }
    }
}
