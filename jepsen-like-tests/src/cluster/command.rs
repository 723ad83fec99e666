//! Tools of the system, run to their end.

use std::ffi::OsStr;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};

/// Runs it and answers with what it printed; fails with what it complained of.
pub(crate) fn run(program: &str, args: &[impl AsRef<OsStr>]) -> Result<String> {
    let output = std::process::Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("failed to start {program}"))?;
    let shown = || {
        let words: Vec<_> = args.iter().map(|arg| arg.as_ref().to_string_lossy()).collect();
        format!("{program} {}", words.join(" "))
    };
    ensure!(
        output.status.success(),
        "`{}` failed: {}",
        shown(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether the program can be found.
pub(crate) fn exists(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}
