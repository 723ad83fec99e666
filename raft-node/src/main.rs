//! `quorate`: one binary, the node and its command line.

mod cli;

fn main() -> std::process::ExitCode {
    cli::run()
}
