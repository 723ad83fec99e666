//! `compare`: Quorate, etcd, NATS JetStream and a bare HTTP handler under the same work, from the same generator, on
//! one machine, in turn.
//!
//! Each system is started for its turn, three nodes on loopback with fresh directories on a real disk, and ended
//! after it: never are two of them under load. `work.rs` says what work there is, `subject.rs` who does it
//! and what he promises; `systems/` starts and drives each; `run.rs` is the loop over rounds, `figures.rs` what is
//! made of them, `targets.rs` what was to be reached, `report/` how it is written down. `bare/` is the bare handler,
//! which runs as a process of its own.
//!
//! It knows no server: Quorate is a binary beside this one.

mod bare;
mod cpu;
mod figures;
mod flags;
mod machine;
mod report;
mod run;
mod servers;
mod subject;
mod systems;
mod targets;
mod work;

use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use self::flags::{Cli, Command};

/// As `quorate` has it: the bare handler is to differ from it in nothing but what it does.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Something that was acknowledged is not so, or could not be found out.
const NOT_TRUE: u8 = 1;
/// It could not be done, for example because a system is not installed.
const FAILED: u8 = 2;
/// Ended by a signal.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let ended = match cli.command {
        Some(Command::Bare(flags)) => bare::serve(&flags).map(|()| ExitCode::SUCCESS),
        None => compare(cli.run),
    };
    ended.unwrap_or_else(|error| {
        eprintln!("compare: {error:#}");
        ExitCode::from(FAILED)
    })
}

fn compare(flags: flags::Run) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(flags.threads)
        .enable_all()
        .build()?;
    let ended = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        // Whoever is dropped here takes his processes and directories with him.
        tokio::select! {
            ended = Box::pin(run::run(&flags)) => ended.map(Some),
            _ = interrupt.recv() => Ok(None),
            _ = terminate.recv() => Ok(None),
        }
    });
    Ok(match ended? {
        Some(true) => ExitCode::SUCCESS,
        Some(false) => ExitCode::from(NOT_TRUE),
        None => {
            eprintln!("compare: interrupted; all servers are ended, what was finished is in --out");
            ExitCode::from(INTERRUPTED)
        }
    })
}
