//! `quorate-planted`: `quorate` with one mistake in it, for tests that must find it. See
//! `quorate_state_machine::planted`.

#[path = "../cli/mod.rs"]
mod cli;

use std::process::ExitCode;

use quorate_state_machine::planted::{Bug, plant};

/// Names the bug.
const VARIABLE: &str = "QUORATE_PLANTED_BUG";

/// As of a wrong command line.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let name = std::env::var(VARIABLE).unwrap_or_default();
    let Some(bug) = Bug::named(&name) else {
        let names: Vec<&str> = Bug::ALL.into_iter().map(Bug::name).collect();
        eprintln!(
            "quorate-planted: {VARIABLE} must be one of {}, not \"{name}\"",
            names.join(", ")
        );
        return ExitCode::from(USAGE);
    };
    plant(bug);
    eprintln!("THIS PROGRAM HAS THE PLANTED BUG {name}: it will lose or mix up data. Use it for tests only.");
    cli::run()
}
