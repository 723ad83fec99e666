//! `quorate bench …`: what a running cluster can carry, and how long each answer takes. The generator and the
//! workloads are those of `quorate-bench`; here are the flags, the progress and what is printed.

mod failover;
mod flags;
mod locks;
mod progress;
mod reads;
mod sends;
mod setting;
mod streams;
mod workload;

use clap::Subcommand;

use self::flags::{Aim, Rooms};
use self::workload::perform;
use super::Global;
use super::exit::Failure;
use super::output::Output;

const EXAMPLES: &str = "\
Examples:
  quorate bench send --clients 64 --duration 30s
  quorate bench send --rate 2000 --duration 5m          open loop: a stall is not hidden
  quorate bench send --over ws --connections 64 --clients 1024
  quorate bench batch --size 100 --clients 8
  quorate bench history --level local --limit 50
  quorate bench streams --subscribers 2000 --rate 50
  quorate bench locks --owners 16
  quorate bench failover --transfer --rounds 20
  quorate bench send --endpoints http://10.0.0.1:7101 --output json

Each makes rooms and users of its own, whose names begin with --prefix and a tag of the run, and says
what it leaves behind; --cleanup deletes it. Times are of those operations that began after the
warm-up. A sample of what was acknowledged is read back afterwards: if anything is not there, or is
something else, the command ends with 1.

The load comes from this machine, and shares it with whatever else runs here. Do not aim it at a
cluster that people use: it takes what it can get.";

#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum Bench {
    /// Send messages, one a request
    Send(sends::Send),
    /// Send messages, many a request
    Batch(sends::Batch),
    /// Read pages of rooms' histories
    History(reads::History),
    /// Read single messages
    Read(reads::Read),
    /// What a busy chat is asked: polls, looks, pages, and few sends (Zulip's published proportions)
    Mixed(streams::Mixed),
    /// Send messages, and time them until they reach those who read along
    Streams(streams::Streams),
    /// Have owners wait for one another's locks, and time the hand-overs
    Locks(locks::Locks),
    /// Time how long nobody's write is acknowledged when the leader goes
    Failover(failover::Failover),
}

impl Bench {
    pub(crate) fn run(self, global: Global, output: &Output) -> Result<(), Failure> {
        if global.idempotency_key.is_some() {
            return Err(Failure::Usage(
                "bench sends many writes: leave --idempotency-key out (send and batch have --keyed)".into(),
            ));
        }
        let (aim, rooms) = self.shared_flags();
        if let Some(rooms) = rooms {
            rooms.check(global.acts_as_one())?;
        }
        // Every connection takes a descriptor; where the limit cannot be raised, the run counts what fails.
        let _ = raft_node::descriptors::raise();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(aim.threads as usize)
            .enable_all()
            .build()
            .map_err(Failure::local)?;
        runtime.block_on(async {
            match self {
                Bench::Send(send) => perform(send, &global, output).await,
                Bench::Batch(batch) => perform(batch, &global, output).await,
                Bench::History(history) => perform(history, &global, output).await,
                Bench::Read(read) => perform(read, &global, output).await,
                Bench::Mixed(mixed) => perform(mixed, &global, output).await,
                Bench::Streams(streams) => perform(streams, &global, output).await,
                Bench::Locks(locks) => locks.run(&global, output).await,
                Bench::Failover(failover) => failover.run(&global, output).await,
            }
        })
    }

    /// What is looked at before anything begins, whatever the workload.
    fn shared_flags(&self) -> (&Aim, Option<&Rooms>) {
        match self {
            Bench::Send(sends::Send { common, .. })
            | Bench::Batch(sends::Batch { common, .. })
            | Bench::History(reads::History { common, .. })
            | Bench::Read(reads::Read { common, .. })
            | Bench::Mixed(streams::Mixed { common, .. })
            | Bench::Streams(streams::Streams { common, .. }) => (&common.aim, Some(&common.rooms)),
            Bench::Locks(locks) => (&locks.aim, None),
            Bench::Failover(failover) => (&failover.aim, Some(&failover.rooms)),
        }
    }
}

impl Global {
    /// All is done as one user, who is known: none can be made to act as.
    fn acts_as_one(&self) -> bool {
        self.token.is_some() || self.acting.is_some()
    }

    /// A request that is not answered for so long is dropped.
    fn answer_within(&self) -> std::time::Duration {
        self.timeout.unwrap_or(flags::ANSWER_WITHIN)
    }
}

#[cfg(test)]
mod tests;
