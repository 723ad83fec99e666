//! Who waits for news of a room on this node.

use std::collections::HashMap;
use std::sync::Mutex;

use quorate_state_machine::RoomId;
use tokio::sync::watch;

/// One watch channel for each room that somebody watches. A room without watchers goes at its next
/// change, or when the table has doubled: it stays within twice the API's bound on streams.
#[derive(Debug, Default)]
pub struct Watchers {
    /// Held for a look-up or a sweep, never across an await.
    rooms: Mutex<Rooms>,
}

#[derive(Debug, Default)]
struct Rooms {
    senders: HashMap<RoomId, watch::Sender<u64>>,
    /// So many were left by the last sweep.
    kept: usize,
}

/// A table this small is not worth a sweep.
const SWEEP_ABOVE: usize = 64;

impl Watchers {
    pub fn watch(&self, room: RoomId) -> watch::Receiver<u64> {
        let mut rooms = self.rooms.lock().expect("no panic while the lock is held");
        if rooms.senders.len() > SWEEP_ABOVE.max(2 * rooms.kept) {
            rooms.senders.retain(|_, sender| sender.receiver_count() > 0);
            rooms.kept = rooms.senders.len();
        }
        rooms
            .senders
            .entry(room)
            .or_insert_with(|| watch::Sender::new(0))
            .subscribe()
    }

    /// Wakes the room's watchers. Called after the change is readable.
    pub fn notify(&self, rooms_changed: impl IntoIterator<Item = (RoomId, u64)>) {
        let rooms = &mut self.rooms.lock().expect("no panic while the lock is held").senders;
        if rooms.is_empty() {
            return;
        }
        for (room, revision) in rooms_changed {
            let unwatched = match rooms.get(&room) {
                Some(sender) => sender.send(revision).is_err(),
                None => false,
            };
            if unwatched {
                rooms.remove(&room);
            }
        }
    }

    /// Wakes all watchers: the state was replaced as a whole.
    pub fn notify_all(&self, revision: u64) {
        let rooms = self.rooms.lock().expect("no panic while the lock is held");
        for sender in rooms.senders.values() {
            sender.send_replace(revision);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_that_nobody_watches_any_more_are_swept() {
        let watchers = Watchers::default();
        let kept = watchers.watch(RoomId(0));
        for room in 1..10_000 {
            drop(watchers.watch(RoomId(room)));
        }
        assert!(watchers.rooms.lock().unwrap().senders.len() <= SWEEP_ABOVE + 1);
        watchers.notify([(RoomId(0), 7), (RoomId(9_999), 8)]);
        assert_eq!(*kept.borrow(), 7);
        watchers.notify_all(9);
        assert_eq!(*kept.borrow(), 9);
    }
}
