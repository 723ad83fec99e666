//! The `quorate` command line, run as a user would run it.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::process::{Child, Command};

/// What a command left behind.
#[derive(Debug, Clone)]
pub struct Output {
    /// None when a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A command with its output caught; it dies with the value that runs it.
pub fn command(binary: &std::path::Path, args: &[&str]) -> Command {
    let mut command = Command::new(binary);
    command.args(args);
    // Settings of whoever runs the tests must not leak into them.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("QUORATE_") {
            command.env_remove(name);
        }
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Runs it to its end, at most `within`.
pub async fn run(mut command: Command, within: Duration) -> Result<Output> {
    let child = command.spawn().context("failed to start the command line")?;
    finish(child, within).await
}

/// Waits for the end of a command that was started before.
pub async fn finish(child: Child, within: Duration) -> Result<Output> {
    let ended = tokio::time::timeout(within, child.wait_with_output()).await;
    let output = ended.with_context(|| format!("the command still runs after {within:?}"))??;
    Ok(Output {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
