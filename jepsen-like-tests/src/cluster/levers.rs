//! Libraries put between a node and the system, and what pulls on them while it runs: a wall clock that can
//! be moved (libfaketime; the monotonic clock stays right), and syncs that fail (libfiu).

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::clocks;
use super::command::{exists, run};

/// Where Debian's package `fiu-utils` puts the libraries: the one that listens for orders, the one that fails.
const FAILING: [&str; 2] = ["/usr/lib/fiu/fiu_run_preload.so", "/usr/lib/fiu/fiu_posix_preload.so"];
/// A process takes an order at once, unless it is gone.
const ORDER_TIMEOUT_S: &str = "2";
/// EIO, as the kernel says it.
const INPUT_OUTPUT_ERROR: &str = "5";

/// The system calls that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syncs {
    Fdatasync,
    Fsync,
    SyncFileRange,
}

impl Syncs {
    pub fn name(self) -> &'static str {
        match self {
            Self::Fdatasync => "fdatasync",
            Self::Fsync => "fsync",
            Self::SyncFileRange => "sync_file_range",
        }
    }
}

/// Of one node.
#[derive(Debug)]
pub(super) struct Levers {
    clock: Option<Clock>,
    /// What the orders to libfiu are named by, besides the process id.
    orders: Option<PathBuf>,
}

#[derive(Debug)]
struct Clock {
    library: &'static str,
    file: PathBuf,
}

impl Levers {
    /// What is installed, with its files named by this node in `folder`.
    pub(super) fn installed(folder: &Path, id: u64) -> Result<Self> {
        let levers = Self {
            clock: clocks::library().map(|library| Clock {
                library,
                file: folder.join(format!("node-{id}.clock")),
            }),
            orders: has_failing_syncs().then(|| folder.join(format!("node-{id}.syncs"))),
        };
        levers.set_clock(0)?;
        Ok(levers)
    }

    /// A command that replaces itself by the process.
    pub(super) fn wrapper(&self) -> Vec<String> {
        let mut libraries = Vec::new();
        let mut words = vec!["env".to_owned()];
        if let Some(orders) = &self.orders {
            libraries.extend(FAILING);
            words.push(format!("FIU_CTRL_FIFO={}", orders.display()));
        }
        if let Some(clock) = &self.clock {
            libraries.push(clock.library);
            words.push(format!("FAKETIME_TIMESTAMP_FILE={}", clock.file.display()));
            words.push("FAKETIME_NO_CACHE=1".to_owned());
            words.extend(clocks::ONLY_THE_WALL_CLOCK.map(str::to_owned));
        }
        words.push(format!("LD_PRELOAD={}", libraries.join(":")));
        words
    }

    /// Moves the wall clock to so many seconds from the right time, at once.
    pub(super) fn set_clock(&self, offset_s: i64) -> Result<()> {
        let Some(clock) = &self.clock else {
            return Ok(());
        };
        // Replaced as a whole: the node reads it at any moment.
        let new = clock.file.with_extension("clock-new");
        std::fs::write(&new, format!("{offset_s:+}\n"))?;
        Ok(std::fs::rename(new, &clock.file)?)
    }

    /// From now on, until the process ends.
    pub(super) fn fail(&self, pid: u32, syncs: Syncs) -> Result<()> {
        let orders = self.orders.as_ref().context("libfiu is not installed")?;
        let order = format!(
            "enable name=posix/io/sync/{},failinfo={INPUT_OUTPUT_ERROR}",
            syncs.name()
        );
        let orders = orders.to_str().context("names are text")?;
        let fifo = format!("{orders}-{pid}.in");
        ensure!(Path::new(&fifo).exists(), "process {pid} does not listen at {fifo}");
        // It waits for the process to take the order, which one that has just ended never does.
        run(
            "timeout",
            &[
                ORDER_TIMEOUT_S,
                "fiu-ctrl",
                "-c",
                &order,
                "-f",
                orders,
                &pid.to_string(),
            ],
        )?;
        Ok(())
    }
}

pub(super) fn has_failing_syncs() -> bool {
    exists("fiu-ctrl") && FAILING.iter().all(|library| Path::new(library).exists())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cluster::Process;

    fn shell(script: &str) -> (tempfile::TempDir, Levers, Process) {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let levers = Levers::installed(folder.path(), 1).expect("files can be written");
        let log = folder.path().join("log");
        let args = vec![
            "-c".into(),
            script.into(),
            "sh".into(),
            folder.path().display().to_string(),
        ];
        let process = Process::new("/bin/sh".into(), args, log).inside(levers.wrapper());
        (folder, levers, process)
    }

    #[tokio::test]
    async fn a_running_process_sees_its_clock_jump() {
        if clocks::library().is_none() {
            return eprintln!("SKIPPED a_running_process_sees_its_clock_jump: libfaketime is not installed");
        }
        // A shell asks by itself; `date` is a new process, which shows the same file.
        let (folder, levers, process) = shell("date +%s; while [ ! -e \"$1/go\" ]; do sleep 0.01; done; date +%s");
        process.start().expect("a shell can be started");
        let first = crate::wait::eventually("the first time", Duration::from_secs(10), async || {
            process.log_tail(100).trim().parse::<i64>()
        });
        let first = first.await.expect("date answers");
        levers.set_clock(-7200).expect("the file can be written");
        std::fs::write(folder.path().join("go"), "").expect("the folder is there");
        process
            .wait_end(Duration::from_secs(10))
            .await
            .expect("it ends by itself");
        let log = process.log_tail(100);
        let second: i64 = log.lines().nth(1).expect("two lines").parse().expect("a number");
        assert!((7100..=7200).contains(&(first - second)), "{log}");
    }

    #[tokio::test]
    async fn syncs_fail_in_a_running_process_and_other_calls_do_not() {
        if !has_failing_syncs() {
            return eprintln!("SKIPPED syncs_fail_in_a_running_process_and_other_calls_do_not: no libfiu");
        }
        // dd writes, syncs the data and says what came of it; it waits for its input.
        let script = "exec dd if=\"$1/in\" of=\"$1/out\" conv=fdatasync";
        let (folder, levers, process) = shell(script);
        let input = folder.path().join("in");
        nix::unistd::mkfifo(&input, nix::sys::stat::Mode::S_IRWXU).expect("a pipe can be made");
        process.start().expect("a shell can be started");
        let pid = process.id().expect("it was started");
        let writer = std::fs::File::options();
        crate::wait::eventually("it takes the order", Duration::from_secs(10), async || {
            levers.fail(pid, Syncs::Fdatasync)
        })
        .await
        .expect("it listens");
        use std::io::Write;
        let mut pipe = writer.clone().write(true).open(&input).expect("dd reads it");
        pipe.write_all(b"text").expect("dd reads it");
        drop(pipe);
        let status = process
            .wait_end(Duration::from_secs(10))
            .await
            .expect("it ends by itself");
        assert!(!status.success(), "{}", process.log_tail(1000));
        assert!(process.log_tail(1000).contains("Input/output error"));
        assert_eq!(std::fs::read(folder.path().join("out")).expect("written"), b"text");
    }
}
