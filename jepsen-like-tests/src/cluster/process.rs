//! One `quorate serve` process: started, signalled, ended, started again over the same data.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, mpsc};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::clocks;
use crate::wait::Patience;

/// A node's process and its log file. All output of all its lives goes to the one file.
#[derive(Debug)]
pub struct Process {
    binary: PathBuf,
    args: Vec<String>,
    /// A command and its arguments that start the binary, in their place.
    wrapper: Vec<String>,
    log: PathBuf,
    /// Held only to look at or signal the child, never across an await.
    child: Mutex<Option<Child>>,
}

impl Process {
    pub fn new(binary: PathBuf, args: Vec<String>, log: PathBuf) -> Self {
        Self {
            binary,
            args,
            wrapper: Vec::new(),
            log,
            child: Mutex::new(None),
        }
    }

    /// The same process, started by this command, which must replace itself by it. Of several the first one
    /// starts the second.
    pub(super) fn inside(mut self, wrapper: Vec<String>) -> Self {
        self.wrapper.extend(wrapper);
        self
    }

    pub fn start(&self) -> Result<()> {
        let mut child = self.child.lock().expect("no holder of this lock panics");
        if let Some(before) = child.as_mut() {
            ensure!(before.try_wait()?.is_some(), "process {} still runs", before.id());
            clocks::clean_up_after(before.id());
        }
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut words = self.wrapper.iter().map(AsRef::as_ref).collect::<Vec<&OsStr>>();
        words.push(self.binary.as_os_str());
        let mut command = tied_to_this_process(words[0]);
        command
            .args(&words[1..])
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C at a terminal is for whoever runs the cluster, not for its nodes.
            .process_group(0);
        *child = Some(spawn(command).with_context(|| format!("failed to start {}", self.binary.display()))?);
        Ok(())
    }

    /// Sends the signal without waiting for what comes of it.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let mut child = self.child.lock().expect("no holder of this lock panics");
        let running = child.as_mut().ok_or_else(|| anyhow!("the process was never started"))?;
        if let Some(status) = running.try_wait()? {
            bail!("the process has already ended: {status}");
        }
        let pid = i32::try_from(running.id()).expect("a process id is positive and small");
        Ok(kill(Pid::from_raw(pid), signal)?)
    }

    /// The id of the process that was started last.
    pub fn id(&self) -> Option<u32> {
        self.child
            .lock()
            .expect("no holder of this lock panics")
            .as_ref()
            .map(Child::id)
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<ExitStatus> {
        let mut child = self.child.lock().expect("no holder of this lock panics");
        child.as_mut().and_then(|running| running.try_wait().ok().flatten())
    }

    /// Started and not ended. A paused process runs.
    pub fn runs(&self) -> bool {
        let started = self.child.lock().expect("no holder of this lock panics").is_some();
        started && self.ended().is_none()
    }

    /// Waits until the process is gone.
    pub async fn wait_end(&self, within: Duration) -> Result<ExitStatus> {
        let patience = Patience::new("the process ends", within);
        loop {
            match self.ended() {
                Some(status) => return Ok(status),
                None => patience.again("it still runs").await?,
            }
        }
    }

    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// How much the log holds now, for [`Process::log_since`].
    pub fn log_bytes(&self) -> u64 {
        std::fs::metadata(&self.log).map_or(0, |file| file.len())
    }

    /// What was logged after the first `bytes`.
    pub fn log_since(&self, bytes: u64) -> String {
        let mut log = Vec::new();
        let read = open_log(&self.log).and_then(|mut file| {
            file.seek(SeekFrom::Start(bytes))?;
            file.read_to_end(&mut log)
        });
        match read {
            Ok(_) => String::from_utf8_lossy(&log).into_owned(),
            // It was never started.
            Err(_) => String::new(),
        }
    }

    /// The end of the log, at most `bytes_max` of it, cut at a line.
    pub fn log_tail(&self, bytes_max: u64) -> String {
        tail(&self.log, bytes_max).unwrap_or_else(|error| format!("(no log: {error})"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(child) = child {
            // Both fail only for a process that is already gone. SIGKILL ends a paused one too.
            let _ = child.kill();
            let _ = child.wait();
            clocks::clean_up_after(child.id());
        }
    }
}

/// Only a file: a test may have put a pipe in its place, and reading that has no end.
fn open_log(path: &Path) -> io::Result<File> {
    match std::fs::metadata(path)?.is_file() {
        true => File::open(path),
        false => Err(io::Error::other("not a file")),
    }
}

fn tail(path: &Path, bytes_max: u64) -> io::Result<String> {
    let mut file = open_log(path)?;
    let length = file.metadata()?.len();
    let skipped = length.saturating_sub(bytes_max);
    file.seek(SeekFrom::Start(skipped))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let from = match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) if skipped > 0 => end + 1,
        _ => 0,
    };
    Ok(String::from_utf8_lossy(&bytes[from..]).into_owned())
}

/// A command that the kernel kills when this process dies, however it dies. `setpriv` (util-linux)
/// does it without unsafe code here; where it is missing, only `Drop` stops the nodes.
pub(super) fn tied_to_this_process(binary: &OsStr) -> Command {
    static SETPRIV: OnceLock<bool> = OnceLock::new();
    let works = *SETPRIV.get_or_init(|| {
        let tried = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "true"])
            .stderr(Stdio::null())
            .status();
        tried.is_ok_and(|status| status.success())
    });
    if works {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(binary);
        command
    } else {
        Command::new(binary)
    }
}

/// Starts the command from a thread that lives as long as this process: the kernel counts the
/// death of the *thread* that started a child, and a test's own threads come and go.
pub(super) fn spawn(command: Command) -> io::Result<Child> {
    type Order = (Command, mpsc::SyncSender<io::Result<Child>>);
    static SPAWNER: OnceLock<mpsc::SyncSender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        // One order at a time: who orders waits for the child.
        let (orders, taken) = mpsc::sync_channel::<Order>(0);
        std::thread::spawn(move || {
            for (mut command, reply) in taken {
                // The orderer waits for the reply, so the channel cannot be closed.
                let _ = reply.send(command.spawn());
            }
        });
        orders
    });
    let (reply, child) = mpsc::sync_channel(1);
    spawner.send((command, reply)).expect("the spawning thread never ends");
    child.recv().expect("the spawning thread answers each order")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> (tempfile::TempDir, Process) {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let log = folder.path().join("log");
        let process = Process::new("/bin/sh".into(), vec!["-c".into(), script.into()], log);
        process.start().expect("a shell can be started");
        (folder, process)
    }

    #[tokio::test]
    async fn output_goes_to_the_log_and_the_end_is_seen() {
        let (_folder, process) = shell("echo out; echo err >&2; exit 3");
        let status = process
            .wait_end(Duration::from_secs(10))
            .await
            .expect("the shell ends by itself");
        assert_eq!(status.code(), Some(3));
        assert_eq!(process.log_tail(1000), "out\nerr\n");
        assert_eq!(process.log_tail(5), "err\n");
        assert!(process.signal(Signal::SIGTERM).is_err());
    }

    #[tokio::test]
    async fn a_paused_process_dies_with_its_owner() {
        let (_folder, process) = shell("exec tail -f /dev/null");
        process.signal(Signal::SIGSTOP).expect("the shell runs");
        assert!(process.runs());
        let pid = process
            .child
            .lock()
            .expect("unpoisoned")
            .as_ref()
            .expect("started")
            .id();
        drop(process);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
}
