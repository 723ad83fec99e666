//! Tasks without which a node is of no use, and work that must not hold them up.

use std::future::Future;
use std::io::{self, Write};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use quorate_storage::FatalHook;
use tokio::runtime::{Handle, RuntimeFlavor};

/// How long whoever reads standard error may take for the last line of a process, which must end also if he hangs.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

/// Runs a task whose panic ends the process: a node that lives on without it would look healthy and
/// answer nothing right.
pub fn spawn_vital(name: &'static str, on_fatal: FatalHook, task: impl Future<Output = ()> + Send + 'static) {
    let task = tokio::spawn(task);
    tokio::spawn(async move {
        match task.await {
            Err(error) if error.is_panic() => on_fatal(format!("{name} has panicked: {error}")),
            // It ended because the node is going down, or was cancelled with the runtime.
            _ => {}
        }
    });
}

/// Does work that waits for a disk on a thread of its own, and waits for it. A panic is an error.
///
/// A runtime of one thread, which is that of a simulation or of a test, does it at once instead: a second thread
/// would end it at another moment in each run.
pub async fn run_blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> io::Result<T>
where
    T: Send + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    let done = match has_one_thread() {
        true => work(),
        false => tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?,
    };
    done.map_err(io::Error::other)
}

/// The same for work that nobody waits for.
pub fn start_blocking(work: impl FnOnce() + Send + 'static) {
    match has_one_thread() {
        true => work(),
        false => drop(tokio::task::spawn_blocking(work)),
    }
}

/// Does what may never come back, such as writing where nobody reads, and waits for it so long and no longer.
pub fn wait_at_most(limit: Duration, work: impl FnOnce() + Send + 'static) {
    let (done, wait) = mpsc::channel::<()>();
    let thread = thread::Builder::new().name("bounded-wait".to_owned()).spawn(move || {
        work();
        drop(done);
    });
    // Without a thread there is nothing to wait for.
    if thread.is_ok() {
        // Ends when the sender is dropped, be it by a panic, or with the time.
        let _ = wait.recv_timeout(limit);
    }
}

/// Says the last line of a process on standard error. If that is closed, or nobody reads it, there is nobody to tell.
pub fn tell_last(line: String) {
    wait_at_most(TOLD_WITHIN, move || {
        let _ = writeln!(io::stderr(), "{line}");
    });
}

fn has_one_thread() -> bool {
    Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread
}
