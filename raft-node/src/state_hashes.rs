//! Hashes of the state after agreed entries of the log, so that nodes can be compared while they work.
//!
//! An entry without commands is the agreement: each node that applies it notes its state at that point
//! and hashes it beside the work. Equal logs make equal states; a hash that differs is a broken disk, a
//! broken memory or a bug, and says on which node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use quorate_storage::state::StateStore;
use quorate_storage::{FatalHook, aside};
use tokio::sync::{Semaphore, watch};

use crate::tasks::start_blocking;

/// Of the last so many agreed entries. More than one, since somebody may ask while another does.
const KEPT_MAX: usize = 4;

pub type HashResult = Result<StateHash, String>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateHash {
    pub revision: u64,
    pub hash: u128,
}

/// By log index; none until it is ready.
type Slots = BTreeMap<u64, watch::Receiver<Option<HashResult>>>;

#[derive(Clone)]
pub struct StateHashes {
    slots: Arc<watch::Sender<Slots>>,
    turn: Arc<Semaphore>,
    open: Arc<AtomicBool>,
}

impl Default for StateHashes {
    fn default() -> Self {
        Self {
            slots: Arc::new(watch::Sender::new(Slots::new())),
            turn: Arc::new(Semaphore::new(1)),
            open: Arc::default(),
        }
    }
}

impl StateHashes {
    /// From now on entries are new. Those that a start applies again, because a crash has taken them from the state,
    /// nobody asks for any more, and a pass over all of the state for each of them would hold up what follows.
    pub fn open(&self) {
        self.open.store(true, Ordering::Release);
    }

    /// Called with the state as it is right after entry `index`: what is applied later does not count.
    /// A state that cannot be read is told to `on_fatal`: a node must not go on serving what is damaged.
    pub fn begin<S: StateStore>(&self, state: &S, index: u64, revision: u64, on_fatal: FatalHook) {
        if !self.open.load(Ordering::Acquire) {
            return;
        }
        let (tx, rx) = watch::channel(None);
        self.slots.send_modify(|slots| {
            slots.insert(index, rx);
            while slots.len() > KEPT_MAX {
                slots.pop_first();
            }
        });
        // A node that catches up meets many marks at once; only the first of them is worth a pass.
        let Ok(turn) = self.turn.clone().try_acquire_owned() else {
            tx.send_replace(Some(Err("this node was busy with another hash".to_owned())));
            return;
        };
        // Its thread has taken its snapshot when it comes back.
        let hash = aside(|| state.hash_later());
        start_blocking(move || {
            let result = hash().map(|hash| StateHash { revision, hash });
            if let Err(error) = &result {
                on_fatal(format!("failed to read the state to compare it: {error}"));
            }
            // Before it is told: whoever asks again at once finds it free.
            drop(turn);
            tx.send_replace(Some(result.map_err(|error| error.to_string())));
        });
    }

    /// Waits until entry `index` was applied and its hash is ready. One that this node passed over, since it
    /// took over the state as a whole, never comes; the caller has a deadline.
    pub async fn get(&self, index: u64) -> HashResult {
        let stopped = |_| "this node is shutting down".to_owned();
        let mut slots = self.slots.subscribe();
        let mut slot = {
            let slots = slots
                .wait_for(|slots| slots.last_key_value().is_some_and(|(last, _)| *last >= index))
                .await
                .map_err(stopped)?;
            slots
                .get(&index)
                .cloned()
                .ok_or("it has no hash of that entry any more")?
        };
        let ready = slot.wait_for(Option::is_some).await.map_err(stopped)?;
        ready.clone().expect("waited for it")
    }
}
