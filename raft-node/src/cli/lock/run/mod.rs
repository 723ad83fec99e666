//! `quorate lock run`: a command that runs while a lock is held, and no longer.
//!
//! Start reading at [`Run::run`], then `bounds` (when the command must end). Two more processes of this binary see
//! to it that the command does not outlive `run` itself: `child` and `watchdog`.

mod bounds;
mod child;
mod clock;
mod renewals;
mod watchdog;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
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
the lock could be another's, and KILL at a tenth (at most 1 s). If this process itself is killed or stopped, the
group is killed all the same. A process that leaves the group (setsid, a daemon) escapes all of this: let it check
the token.

At a terminal the command has no standard input: it is not the terminal's foreground group.

Exit codes: those of the command, 128 + n if signal n ended it; 126 and 127 if it could not be run; 1 if the lock
could not be had, or was lost; 3 if it is not known whether it was had.";

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

impl Run {
    pub(crate) async fn run(self, client: &Client) -> Result<(), Failure> {
        if self.terms.ttl < TTL_MIN {
            return Err(Failure::Usage("run needs a ttl of at least 1 s".into()));
        }
        let mut signals = Signals::listen().map_err(Failure::local)?;
        // Dropped, the request's connection is closed, and the node gives up who waited there.
        let (held, certain, asked) = tokio::select! {
            acquired = self.acquire(client) => acquired?,
            signal = signals.next() => return Err(Failure::Exit(128 + signal as u8)),
        };
        let bounds = Bounds::of(self.terms.ttl);
        let renewals = Renewals::new(client, &self.lock, held.token, bounds)?;
        let (news, told) = mpsc::channel(NEWS);
        let renewing = tokio::spawn(renewals.run(asked, news));
        let ended = self.hold(&held, bounds, certain, told, &mut signals).await;
        renewing.abort();

        let quickly = client.with_times(RELEASE_WITHIN, RELEASE_WITHIN);
        let released = quickly.release_lock(&self.lock, held.token).await;
        if let (Err(error), Ok(_)) = (&released, &ended) {
            eprintln!("quorate: failed to give the lock back, its ttl will: {error}");
        }
        match ended? {
            0 => Ok(()),
            code => Err(Failure::Exit(code)),
        }
    }

    /// The lock, until when it is certainly held, and when that was asked for.
    async fn acquire(&self, client: &Client) -> Result<(HeldLock, Duration, Duration), Failure> {
        let wait = self.wait.unwrap_or(Duration::from_millis(LOCK_WAIT_MS_MAX));
        let asked = clock::now();
        let held = match client.acquire_lock(&self.lock, &self.terms.wanted(wait)).await {
            Ok(held) => held,
            Err(error) => return Err(held_by(client, &self.lock, error).await),
        };
        let bounds = Bounds::of(self.terms.ttl);
        let certain = |held: &HeldLock, asked| asked + Duration::from_millis(held.expires_in_ms);
        if clock::now() < asked + bounds.renew_every {
            let certain = certain(&held, asked);
            return Ok((held, certain, asked));
        }
        // The wait has used up what was certain: a renewal says anew.
        let asked = clock::now();
        let quickly = client.with_times(bounds.renew_every, bounds.attempt);
        let held = quickly.renew_lock(&self.lock, held.token, None).await?;
        let certain = certain(&held, asked);
        Ok((held, certain, asked))
    }

    /// Runs the command under the lock. Its exit code; what ended it before its time is a failure.
    async fn hold(
        &self,
        held: &HeldLock,
        bounds: Bounds,
        mut certain: Duration,
        mut told: mpsc::Receiver<News>,
        signals: &mut Signals,
    ) -> Result<u8, Failure> {
        let mut running = Running::start(&self.command, held, bounds.kill_at(certain)).map_err(Failure::local)?;
        let mut exited = std::pin::pin!(exit_of(running.group));
        let mut failed = String::from("no node has answered");
        // Why the command is made to end, and when it is killed.
        let mut ending: Option<(String, Duration)> = None;
        loop {
            let now = clock::now();
            if ending.is_none() && now >= bounds.term_at(certain) {
                let why = format!("the lock \"{}\" could not be renewed in time: {failed}", self.lock);
                running.signal(Signal::SIGTERM);
                ending = Some((why, bounds.kill_at(certain)));
            }
            let next = match &ending {
                Some((_, kill_at)) if now >= *kill_at => {
                    running.signal(Signal::SIGKILL);
                    now + Duration::from_secs(1)
                }
                Some((_, kill_at)) => *kill_at,
                None => bounds.term_at(certain),
            };
            tokio::select! {
                ended = &mut exited => {
                    ended.map_err(Failure::local)?;
                    break;
                }
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
        }
        let status = running.end().await.map_err(Failure::local)?;
        if ending.is_none()
            && status.signal() == Some(Signal::SIGKILL as i32)
            && clock::now() >= bounds.kill_at(certain)
        {
            // This process was stopped, or the machine slept.
            let why = format!("the time of the lock \"{}\" was over", self.lock);
            ending = Some((why, certain));
        }
        match ending {
            Some((why, _)) => Err(Failure::No(412, "lock_lost", format!("{why}; the command was ended"))),
            None => Ok(code_of(status)),
        }
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

    /// To the whole group, also to those of it that are stopped. The number is the group's own until its first
    /// process has been waited for.
    fn signal(&self, signal: Signal) {
        let _ = killpg(self.group, signal);
        let _ = killpg(self.group, Signal::SIGCONT);
    }

    /// The command has ended: whatever it has left behind in its group ends too, before the lock is given back.
    async fn end(mut self) -> std::io::Result<ExitStatus> {
        let _ = killpg(self.group, Signal::SIGKILL);
        let status = self.child.wait()?;
        let until = clock::now() + GONE_WITHIN;
        while killpg(self.group, None).is_ok() && clock::now() < until {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.watchdog.done();
        Ok(status)
    }
}

/// Ends when the process has, and leaves it to be waited for, so that its number is not given to another.
async fn exit_of(process: Pid) -> std::io::Result<()> {
    let wait = move || loop {
        match waitid(Id::Pid(process), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {
            Ok(_) => return Ok(()),
            Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    };
    tokio::task::spawn_blocking(wait).await.map_err(std::io::Error::other)?
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
