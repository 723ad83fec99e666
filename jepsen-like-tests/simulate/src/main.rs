//! `simulate`: runs seeds, says what they came to, and how to repeat one that failed.

use std::process::ExitCode;

use clap::Parser;
use quorate_simulate::{Counts, Settings, run};

/// Simulates clusters that are crashed, cut apart and changed, one for each seed. The same seed is the same run.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// How many seeds.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    first_seed: u64,
    /// Runs this seed alone and prints all that happened.
    #[arg(long, value_name = "SEED", conflicts_with_all = ["seeds", "first_seed"])]
    replay: Option<u64>,
    /// Simulated seconds with faults, for each seed.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Three or five; without it each seed decides.
    #[arg(long, value_parser = three_or_five)]
    nodes: Option<u64>,
}

/// With an even number a majority is larger and no more failures are tolerated.
fn three_or_five(text: &str) -> Result<u64, String> {
    match text {
        "3" => Ok(3),
        "5" => Ok(5),
        _ => Err("3 or 5 nodes".to_owned()),
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "off".into()))
        .with_writer(std::io::stderr)
        .init();
    let settings = Settings {
        seconds: args.seconds,
        nodes: args.nodes,
    };
    let seeds = match args.replay {
        Some(seed) => seed..seed.saturating_add(1),
        None => args.first_seed..args.first_seed.saturating_add(args.seeds),
    };
    let mut sum = Counts::default();
    let mut failed = 0;
    for seed in seeds {
        let began = std::time::Instant::now();
        let outcome = run(seed, settings);
        sum.add(&outcome.counts);
        if args.replay.is_some() {
            println!("{}", outcome.trace);
        }
        match &outcome.violation {
            None => eprintln!(
                "seed {seed} ({:.1} s): {}",
                began.elapsed().as_secs_f64(),
                outcome.counts
            ),
            Some((checker, what)) => {
                failed += 1;
                let nodes = args.nodes.map_or(String::new(), |nodes| format!(" --nodes {nodes}"));
                println!(
                    "seed {seed}: VIOLATION found by {checker}: {what}\n  repeat it: simulate --replay {seed} --seconds {}{nodes}",
                    args.seconds
                );
            }
        }
    }
    println!("{failed} seeds with a violation; {sum}");
    if failed > 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
