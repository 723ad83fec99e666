//! Which threads have panicked: so that a cluster can tell, when it is dropped, whether its test has
//! failed. Clients on other threads may hold it longest, so the dropping thread itself need not panic.

use std::collections::HashSet;
use std::sync::{Mutex, Once};
use std::thread::ThreadId;

/// Held for one insertion or look-up. None until the first panic.
static PANICKED: Mutex<Option<HashSet<ThreadId>>> = Mutex::new(None);

/// Begins to take notice of panics, in addition to what is done about them already.
pub(super) fn watch() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let mut panicked = PANICKED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            panicked.get_or_insert_default().insert(std::thread::current().id());
            drop(panicked);
            before(panic);
        }));
    });
}

pub(super) fn in_thread(thread: ThreadId) -> bool {
    let panicked = PANICKED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    panicked.as_ref().is_some_and(|threads| threads.contains(&thread))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_thread_that_panicked_is_noticed() {
        watch();
        let failed = std::thread::spawn(|| panic!("on purpose, to be noticed"));
        let id = failed.thread().id();
        assert!(failed.join().is_err());
        assert!(in_thread(id));
        assert!(!in_thread(std::thread::current().id()));
    }
}
