//! Who waits for news of a room on this node.

use std::collections::HashMap;
use std::sync::Mutex;

use quorate_state_machine::RoomId;
use tokio::sync::watch;

/// One watch channel for each room that somebody watches. Its bound is the API's bound on streams:
/// a room's channel goes with its last watcher.
#[derive(Debug, Default)]
pub struct Watchers {
    /// Held for a look-up only, never across an await.
    rooms: Mutex<HashMap<RoomId, watch::Sender<u64>>>,
}

impl Watchers {
    pub fn watch(&self, room: RoomId) -> watch::Receiver<u64> {
        let mut rooms = self.rooms.lock().expect("no panic while the lock is held");
        rooms.entry(room).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    /// Wakes the room's watchers. Called after the change is readable.
    pub fn notify(&self, rooms_changed: impl IntoIterator<Item = (RoomId, u64)>) {
        let mut rooms = self.rooms.lock().expect("no panic while the lock is held");
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
}
