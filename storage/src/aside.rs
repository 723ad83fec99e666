//! Work that may keep its thread for long, beside the other tasks of the runtime: Raft's heartbeats above all, without which
//! the node would seem dead. A node with two cores has one thread for all of them.
//!
//! It stays on its thread, and another one takes the tasks over. That costs two wake-ups, so it is for work that takes
//! longer than those, or may.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Does what may take long while another thread goes on with the runtime's other tasks.
pub fn aside<R>(work: impl FnOnce() -> R) -> R {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        // Not on a runtime, or on one that has no other thread.
        _ => work(),
    }
}

/// The same if it may take long, and at once otherwise.
pub fn aside_if<R>(may_take_long: bool, work: impl FnOnce() -> R) -> R {
    match may_take_long {
        true => aside(work),
        false => work(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    /// The work waits for another task of a runtime with one thread; without a runtime there is nobody to wait for.
    #[test]
    fn others_go_on_meanwhile() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap();
        let (other, done) = mpsc::channel();
        let work = runtime.spawn(async move {
            let came = aside(|| done.recv_timeout(Duration::from_secs(20)));
            // And the task goes on where it was.
            tokio::task::yield_now().await;
            came
        });
        runtime.spawn(async move { other.send(7) });
        assert_eq!(runtime.block_on(work).unwrap(), Ok(7));
        assert_eq!(aside(|| 8), 8);
        let single = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert_eq!(single.block_on(async { aside(|| 9) }), 9);
    }
}
