//! Ends the command when `quorate lock run` cannot: because it was killed, or stopped, or is not given the time.
//!
//! A process of its own, in a group of its own. It reads what `run` writes: until when the command may live. When
//! that moment has come, or the pipe is closed without a word, it kills the command's process group.

use std::io::{BufRead, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::clock;
use crate::cli::exit::Failure;

/// The last line: the command's group is gone.
const DONE: &str = "done";
/// It has nothing left to do then but to read that.
const DONE_WITHIN: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub(crate) struct RunWatchdog {}

impl RunWatchdog {
    pub(crate) fn run(self) -> Result<(), Failure> {
        // Two lines are in the pipe at most, so the reader is never far behind.
        let (lines, told) = mpsc::sync_channel::<String>(2);
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                if lines.send(line).is_err() {
                    return;
                }
            }
        });
        let mut watched: Option<(Pid, Duration)> = None;
        let mut killed = false;
        loop {
            let nap = match watched {
                // Whoever was being made at that moment is killed the next time.
                _ if killed => clock::LOOK,
                Some((_, kill_at)) => clock::nap(kill_at),
                None => Duration::from_secs(1),
            };
            let closed = match told.recv_timeout(nap) {
                Ok(line) if line == DONE => return Ok(()),
                Ok(line) => {
                    watched = parse(&line).or(watched);
                    false
                }
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => true,
            };
            match watched {
                Some((group, kill_at)) if closed || clock::now() >= kill_at => {
                    // Gone already is as good.
                    let _ = killpg(group, Signal::SIGKILL);
                    killed = true;
                    if closed {
                        return Ok(());
                    }
                }
                None if closed => return Ok(()),
                _ => {}
            }
        }
    }
}

fn parse(line: &str) -> Option<(Pid, Duration)> {
    let (group, kill_at) = line.split_once(' ')?;
    let group: i32 = group.parse().ok()?;
    // 0 and 1 are not a group's number; they would be everybody's.
    (group > 1).then_some((Pid::from_raw(group), Duration::from_millis(kill_at.parse().ok()?)))
}

/// The side of `run`.
pub(crate) struct Watchdog {
    process: Child,
}

impl Watchdog {
    pub(crate) fn start(program: &std::path::Path) -> std::io::Result<Self> {
        let process = Command::new(program)
            .args(["lock", "run-watchdog"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // What is sent to the group of `run` from a terminal is not for it.
            .process_group(0)
            .spawn()?;
        Ok(Self { process })
    }

    /// The group may live until then.
    pub(crate) fn tell(&mut self, group: Pid, kill_at: Duration) -> std::io::Result<()> {
        self.write(&format!("{group} {}\n", kill_at.as_millis()))
    }

    /// The group is gone. Whoever has stopped the watchdog does not keep the lock from being given back.
    pub(crate) async fn done(mut self) {
        // If it is gone, it is done as well.
        let _ = self.write(&format!("{DONE}\n"));
        drop(self.process.stdin.take());
        let until = clock::now() + DONE_WITHIN;
        while matches!(self.process.try_wait(), Ok(None)) {
            if clock::now() >= until {
                let _ = self.process.kill();
                let _ = self.process.wait();
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn write(&mut self, line: &str) -> std::io::Result<()> {
        let pipe = self.process.stdin.as_mut().expect("the pipe is open until it is done");
        pipe.write_all(line.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_group_and_a_moment_are_taken() {
        let moment = Duration::from_millis(1500);
        assert_eq!(parse("77 1500"), Some((Pid::from_raw(77), moment)));
        for line in ["", "77", "77 x", "x 1500", "-77 1500", "0 1500", "1 1500", "77 1500 9"] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
