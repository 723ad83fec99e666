//! The hash by which replicas are compared, and how it is taken of a moment that has passed.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};

use quorate_state_machine::Fatal;
use xxhash_rust::xxh3::Xxh3;

/// Hashes the state as it was when this was made. Called or dropped, it ends.
pub type HashLater = Box<dyn FnOnce() -> Result<u128, Fatal> + Send>;

/// The hash of [`super::StateStore::state_hash`], fed with keys in ascending order.
pub(super) struct StateHash(Xxh3);

impl StateHash {
    pub(super) fn new() -> Self {
        Self(Xxh3::new())
    }

    /// Lengths go in first, so that no two different states run together into the same bytes.
    pub(super) fn add(&mut self, key: &[u8], value: &[u8]) {
        self.0.update(&(key.len() as u64).to_be_bytes());
        self.0.update(&(value.len() as u64).to_be_bytes());
        self.0.update(key);
        self.0.update(value);
    }

    pub(super) fn finish(&self) -> u128 {
        self.0.digest128()
    }
}

/// What the thread of [`on_thread`] gives: a hash, or nothing if nobody wants it any more.
pub(super) type Hashed = Option<Result<u128, Fatal>>;

/// Runs `work` on a thread of its own, up to its call of [`Moment::wait`], and lets it go on when the
/// hash is wanted. A snapshot of RocksDB borrows its database, so it can neither be returned nor be
/// stored beside it without unsafe code; on the stack of a thread it can live as long as it likes.
pub(super) fn on_thread(work: impl FnOnce(&Moment) -> Hashed + Send + 'static) -> HashLater {
    let (taken_by, taken) = channel();
    let (want, wanted) = channel();
    let moment = Moment {
        taken: taken_by,
        wanted,
    };
    let thread = match Builder::new()
        .name("state-hash".to_owned())
        .spawn(move || work(&moment))
    {
        Ok(thread) => thread,
        Err(error) => {
            return Box::new(move || Err(Fatal::Io(format!("start a thread for the state's hash: {error}"))));
        }
    };
    // Fails if the thread has panicked; then joining it tells.
    let _ = taken.recv();
    let waiting = Waiting {
        want: Some(want),
        thread: Some(thread),
    };
    Box::new(move || waiting.hash())
}

/// Given to the thread.
pub(super) struct Moment {
    taken: Sender<()>,
    wanted: Receiver<()>,
}

impl Moment {
    /// Says that the snapshot is taken, and waits; false if the hash is not wanted any more.
    pub(super) fn wait(&self) -> bool {
        self.taken.send(()).is_ok() && self.wanted.recv().is_ok()
    }
}

/// Ends the thread when it is dropped, so that nothing holds the database after it.
struct Waiting {
    want: Option<Sender<()>>,
    thread: Option<JoinHandle<Hashed>>,
}

impl Waiting {
    fn hash(mut self) -> Result<u128, Fatal> {
        if let Some(want) = &self.want {
            // Fails if the thread has panicked, as above.
            let _ = want.send(());
        }
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(Some(hashed))) => hashed,
            _ => Err(Fatal::Io("the thread that hashes the state has panicked".to_owned())),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        drop(self.want.take());
        if let Some(thread) = self.thread.take() {
            // It has nothing to say: nobody has asked it.
            let _ = thread.join();
        }
    }
}
