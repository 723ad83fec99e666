//! Tasks without which a node is of no use.

use std::future::Future;

use quorate_storage::FatalHook;

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
