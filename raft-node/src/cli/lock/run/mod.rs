//! `quorate lock run`: a command that runs while a lock is held, and no longer.
//!
//! Start reading at [`Run::run`], then `bounds` (when the command must end). Two more processes of this binary see
//! to it that the command does not outlive `run` itself: `child` and `watchdog`.

mod bounds;
mod child;
mod clock;
mod group;
mod renewals;
mod watchdog;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use quorate_client::Client;
use quorate_client::wire::HeldLock;
use quorate_state_machine::limits::LOCK_WAIT_MS_MAX;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

pub(crate) use child::RunChild;
pub(crate) use watchdog::RunWatchdog;

use super::acquire::{Terms, held_by};
use super::parse_wait;
use crate::cli::exit::Failure;
use bounds::{Bounds, TTL_MIN};
use group::Left;
use renewals::{NEWS, News, Renewals};
use watchdog::Watchdog;

const EXAMPLES: &str = "\
Examples:
  quorate lock run nightly -- ./backup --all
  quorate lock run deploy --ttl 30 --wait 0 -- sh -c 'make deploy && make check'

The command runs in a process group of its own, with QUORATE_LOCK and QUORATE_LOCK_TOKEN in its environment. The
lock is renewed every third of the ttl, at whichever node can. INT, TERM and HUP are passed on to the command. When
it ends, what is left of its group is killed, and the lock given back.

If the lock is lost, or cannot be renewed in time, the group gets TERM at a third of the ttl (at most 10 s) before
the lock could be another's, and KILL at a tenth (at most 1 s, or a thousandth of the ttl). If this process itself
is killed or stopped, the group is killed all the same. A process that leaves the group (setsid, a daemon) escapes
all of this, and one of another user (sudo, a setuid program) cannot be killed: let it check the token. If any such
process is seen to be left in the group, the lock is not given back, but ends by its ttl.

At a terminal the command has no standard input: it is not the terminal's foreground group.

Exit codes: those of the command, 128 + n if signal n ended it; 126 and 127 if it could not be run; 1 if the lock
could not be had, or was lost, or not all of the command could be ended; 3 if it is not known whether it was had.";

/// What is needed of the store at the end, for which nobody waits for long.
const RELEASE_WITHIN: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Run {
    lock: String,
    #[command(flatten)]
    terms: Terms,
    /// Wait for the lock so long; 0: not at all [default: 60m]
    #[arg(long, value_name = "TIME", value_parser = parse_wait)]
    wait: Option<Duration>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// A killed process is gone at once, unless it is in the kernel; one that is dead, and that nobody waits for, still
/// counts as one of its group.
const GONE_WITHIN: Duration = Duration::from_secs(1);

/// What became of the command.
struct Outcome {
    /// Its exit code; what ended it before its time is a failure.
    code: Result<u8, Failure>,
    /// Not all of it has ended, and why.
    left: Option<&'static str>,
}

impl Run {
    pub(crate) async fn run(self, client: &Client) -> Result<(), Failure> {
        if self.terms.ttl < TTL_MIN {
            return Err(Failure::Usage("run needs a ttl of at least 1 s".into()));
        }
        let mut signals = Signals::listen().map_err(Failure::local)?;
        // This also undoes that the signal is ignored, which is inherited: the system would wait for the command itself
        // then, and its exit code, and whose its number is, would be lost. The command has the system's usual way again.
        let children = signal(SignalKind::child()).map_err(Failure::local)?;
        let asked = clock::now();
        let wait = self.wait.unwrap_or(Duration::from_millis(LOCK_WAIT_MS_MAX));
        let wanted = self.terms.wanted(wait);
        // Dropped, the request's connection is closed, and the node gives up who waited there.
        let acquired = tokio::select! {
            biased;
            acquired = client.acquire_lock(&self.lock, &wanted) => acquired,
            signal = signals.next() => return Err(exit_by(signal)),
        };
        let held = match acquired {
            Ok(held) => held,
            Err(error) => return Err(held_by(client, &self.lock, error).await),
        };
        let bounds = Bounds::of(self.terms.ttl);
        let prepared = tokio::select! {
            biased;
            signal = signals.next() => Err(exit_by(signal)),
            prepared = self.prepare(client, &held, bounds, asked) => prepared,
        };
        let (renewals, certain, asked) = match prepared {
            Ok(prepared) => prepared,
            Err(failure) => {
                // Nothing has run. If that fails, the ttl does it.
                let _ = self.give_back(client, &held).await;
                return Err(failure);
            }
        };
        let (news, told) = mpsc::channel(NEWS);
        let renewing = tokio::spawn(renewals.run(asked, news));
        let Outcome { code, left } = self.hold(&held, bounds, certain, told, &mut signals, children).await;
        renewing.abort();

        if let Some(left) = left {
            eprintln!(
                "quorate: {left}; the lock \"{}\" is not given back, it ends by its ttl",
                self.lock
            );
            return Err(code.err().unwrap_or(Failure::Exit(1)));
        }
        if let (Err(error), Ok(_)) = (self.give_back(client, &held).await, &code) {
            eprintln!("quorate: failed to give the lock back, its ttl will: {error}");
        }
        match code? {
            0 => Ok(()),
            code => Err(Failure::Exit(code)),
        }
    }

    async fn give_back(&self, client: &Client, held: &HeldLock) -> Result<(), quorate_client::Error> {
        let quickly = client.with_times(RELEASE_WITHIN, RELEASE_WITHIN);
        quickly.release_lock(&self.lock, held.token).await
    }

    /// What renews the lock, until when it is certainly held, and when that was asked for.
    async fn prepare(
        &self,
        client: &Client,
        held: &HeldLock,
        bounds: Bounds,
        mut asked: Duration,
    ) -> Result<(Renewals, Duration, Duration), Failure> {
        let renewals = Renewals::new(client, &self.lock, held.token, bounds)?;
        let mut expires_in_ms = held.expires_in_ms;
        // The wait has used up what was certain: a renewal says anew.
        if clock::now() >= asked + bounds.renew_every {
            asked = clock::now();
            let quickly = client.with_times(bounds.renew_every, bounds.attempt);
            expires_in_ms = quickly.renew_lock(&self.lock, held.token, None).await?.expires_in_ms;
        }
        Ok((renewals, asked + Duration::from_millis(expires_in_ms), asked))
    }

    /// Runs the command under the lock.
    async fn hold(
        &self,
        held: &HeldLock,
        bounds: Bounds,
        mut certain: Duration,
        mut told: mpsc::Receiver<News>,
        signals: &mut Signals,
        mut children: tokio::signal::unix::Signal,
    ) -> Outcome {
        let mut running = match Running::start(&self.command, held, bounds.kill_at(certain)) {
            Ok(running) => running,
            Err(error) => {
                return Outcome {
                    code: Err(Failure::local(error)),
                    left: None,
                };
            }
        };
        let mut failed = String::from("no node has answered");
        // Why the command is made to end, and when it is killed.
        let mut ending: Option<(String, Duration)> = None;
        let watched = loop {
            match has_ended(running.group) {
                Ok(false) => {}
                Ok(true) => break Ok(()),
                Err(error) => break Err(error),
            }
            let now = clock::now();
            if ending.is_none() && now >= bounds.term_at(certain) {
                let why = format!("the lock \"{}\" could not be renewed in time: {failed}", self.lock);
                running.signal(Signal::SIGTERM);
                ending = Some((why, bounds.kill_at(certain)));
            }
            let next = match &ending {
                // What is left then is killed.
                Some((_, kill_at)) if now >= *kill_at => break Ok(()),
                Some((_, kill_at)) => *kill_at,
                None => bounds.term_at(certain),
            };
            tokio::select! {
                _ = children.recv() => {}
                Some(news) = told.recv(), if ending.is_none() => match news {
                    News::Certain(until) => {
                        certain = until;
                        if let Err(error) = running.watchdog.tell(running.group, bounds.kill_at(certain)) {
                            running.signal(Signal::SIGTERM);
                            let kill_at = bounds.kill_when_lost(clock::now(), certain);
                            ending = Some((format!("the watchdog is gone: {error}"), kill_at));
                        }
                    }
                    News::Failed(why) => failed = why,
                    News::Lost(why) => {
                        running.signal(Signal::SIGTERM);
                        ending = Some((why, bounds.kill_when_lost(clock::now(), certain)));
                    }
                },
                signal = signals.next() => running.signal(signal),
                () = tokio::time::sleep(clock::nap(next)) => {}
            }
        };
        // Whatever has happened: nothing of the command goes on without the lock.
        let (status, left) = running.end().await;
        let status = watched.and(status);
        if let Ok(Some(status)) = &status
            && ending.is_none()
            && status.signal() == Some(Signal::SIGKILL as i32)
            && clock::now() >= bounds.kill_at(certain)
        {
            // This process was stopped, or the machine slept.
            let why = format!("the time of the lock \"{}\" was over", self.lock);
            ending = Some((why, certain));
        }
        let left = left.in_words();
        let code = match (ending, status) {
            (Some((why, _)), _) => {
                let end = if left.is_some() {
                    "the command was to end"
                } else {
                    "the command was ended"
                };
                Err(Failure::No(412, "lock_lost", format!("{why}; {end}")))
            }
            (None, Ok(Some(status))) => Ok(code_of(status)),
            (None, Ok(None)) => Err(Failure::Exit(1)),
            (None, Err(error)) => Err(Failure::local(error)),
        };
        Outcome { code, left }
    }
}

/// The command, in its own process group.
struct Running {
    child: Child,
    group: Pid,
    watchdog: Watchdog,
}

impl Running {
    fn start(command: &[OsString], held: &HeldLock, kill_at: Duration) -> std::io::Result<Self> {
        // This very binary, also if another has been put in its place on the disk.
        let program = Path::new("/proc/self/exe");
        let own = if program.exists() {
            program.to_owned()
        } else {
            std::env::current_exe()?
        };
        let mut watchdog = Watchdog::start(&own)?;
        let mut line = Command::new(&own);
        line.args(["lock", "run-child", "--parent"])
            .arg(std::process::id().to_string())
            .arg("--")
            .args(command)
            .env("QUORATE_LOCK", &held.lock)
            .env("QUORATE_LOCK_TOKEN", held.token.to_string())
            .process_group(0);
        // Whoever reads from a terminal without being in its foreground is stopped, for good.
        if std::io::stdin().is_terminal() {
            line.stdin(Stdio::null());
        }
        let mut child = line.spawn()?;
        let group = Pid::from_raw(i32::try_from(child.id()).expect("a process id is an i32"));
        if let Err(error) = watchdog.tell(group, kill_at) {
            let _ = killpg(group, Signal::SIGKILL);
            let _ = child.wait();
            return Err(error);
        }
        Ok(Self { child, group, watchdog })
    }

    fn signal(&self, signal: Signal) {
        group::signal(self.group, signal);
    }

    /// The command has ended, or its time is over: whatever of its group is there ends too, before the lock is given
    /// back. None: it has not ended in time.
    async fn end(mut self) -> (std::io::Result<Option<ExitStatus>>, Left) {
        // What this process may not kill is found below.
        let _ = killpg(self.group, Signal::SIGKILL);
        let until = clock::now() + GONE_WITHIN;
        let mut status = Ok(None);
        let left = loop {
            // Who has not been waited for is still of the group.
            if matches!(status, Ok(None)) {
                status = self.child.try_wait();
            }
            let left = Left::of(self.group);
            if left == Left::Nobody {
                break left;
            }
            if clock::now() >= until {
                break if group::is_dead(self.group) { Left::Nobody } else { left };
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        };
        if left == Left::Nobody {
            self.watchdog.done().await;
        }
        // Else the watchdog, whose pipe is closed without a word, tries once more.
        (status, left)
    }
}

/// Whether the process has ended. It is left to be waited for, so that its number is not given to another.
fn has_ended(process: Pid) -> std::io::Result<bool> {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
    match waitid(Id::Pid(process), flags) {
        Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => Ok(false),
        Ok(_) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

fn exit_by(signal: Signal) -> Failure {
    Failure::Exit(128 + signal as u8)
}

fn code_of(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

/// The signals that are passed on.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::SIGINT,
            _ = self.terminate.recv() => Signal::SIGTERM,
            _ = self.hang_up.recv() => Signal::SIGHUP,
        }
    }
}
