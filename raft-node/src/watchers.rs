//! Who waits for news of a room, a lock or a session on this node.

use std::collections::BTreeMap;
use std::sync::Mutex;

use quorate_state_machine::Topic;
use tokio::sync::watch;

/// One watch channel for each topic that somebody watches. A topic without watchers goes at its next
/// change, or when the table has doubled: it stays within twice the API's bounds on streams and waits.
#[derive(Debug, Default)]
pub struct Watchers {
    /// Held for a look-up or a sweep, never across an await.
    topics: Mutex<Topics>,
}

#[derive(Debug, Default)]
struct Topics {
    /// In order, so that who is woken first is no accident.
    senders: BTreeMap<Topic, watch::Sender<u64>>,
    /// So many were left by the last sweep.
    kept: usize,
}

/// A table this small is not worth a sweep.
const SWEEP_ABOVE: usize = 64;

impl Watchers {
    pub fn watch(&self, topic: Topic) -> watch::Receiver<u64> {
        let mut topics = self.topics.lock().expect("no panic while the lock is held");
        if topics.senders.len() > SWEEP_ABOVE.max(2 * topics.kept) {
            topics.senders.retain(|_, sender| sender.receiver_count() > 0);
            topics.kept = topics.senders.len();
        }
        topics
            .senders
            .entry(topic)
            .or_insert_with(|| watch::Sender::new(0))
            .subscribe()
    }

    /// Wakes the topics' watchers. Called after the change is readable.
    pub fn notify(&self, changed: impl IntoIterator<Item = (Topic, u64)>) {
        let senders = &mut self.topics.lock().expect("no panic while the lock is held").senders;
        if senders.is_empty() {
            return;
        }
        for (topic, revision) in changed {
            let unwatched = match senders.get(&topic) {
                Some(sender) => sender.send(revision).is_err(),
                None => false,
            };
            if unwatched {
                senders.remove(&topic);
            }
        }
    }

    /// Wakes all watchers: the state was replaced as a whole.
    pub fn notify_all(&self, revision: u64) {
        let topics = self.topics.lock().expect("no panic while the lock is held");
        for sender in topics.senders.values() {
            sender.send_replace(revision);
        }
    }
}

#[cfg(test)]
mod tests {
    use quorate_state_machine::RoomId;

    use super::*;

    fn room(id: u64) -> Topic {
        Topic::Room(RoomId(id))
    }

    #[test]
    fn topics_that_nobody_watches_any_more_are_swept() {
        let watchers = Watchers::default();
        let kept = watchers.watch(room(0));
        for id in 1..10_000 {
            drop(watchers.watch(room(id)));
        }
        assert!(watchers.topics.lock().unwrap().senders.len() <= SWEEP_ABOVE + 1);
        watchers.notify([(room(0), 7), (room(9_999), 8)]);
        assert_eq!(*kept.borrow(), 7);
        watchers.notify_all(9);
        assert_eq!(*kept.borrow(), 9);
    }
}
