//! Who follows which room on this node, and what is kept of these rooms for them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use prometheus::IntGauge;
use quorate_state_machine::{Position, Revision, RoomId};
use tokio::sync::watch;

use super::ring::{Look, Piece, Ring, Written};
use crate::metrics::Metrics;

/// What is kept of all rooms together; beyond it, those that have been quiet for longest are forgotten, and whoever
/// is behind there asks the state. 10,000 rooms have 3 KiB each then: some messages.
const BYTES_MAX: usize = 32 << 20;

/// The tails of all rooms that somebody follows.
pub(crate) struct Tails {
    /// Held for a look-up, or for as long as a page is put in or thrown away; never across an await. Taken before
    /// the lock of a ring.
    rooms: Mutex<Rooms>,
    bytes_max: usize,
    bytes: IntGauge,
}

#[derive(Default)]
struct Rooms {
    followed: HashMap<RoomId, Followed>,
    /// The rooms of which something is kept, by when something was last put in.
    by_age: BTreeMap<u64, RoomId>,
    ages: u64,
    bytes: usize,
}

struct Followed {
    tail: Arc<Tail>,
    readers: usize,
    age: u64,
}

/// The newest changes of one room.
pub(crate) struct Tail {
    room: RoomId,
    /// Held for a look or a change, never across an await.
    ring: Mutex<Ring>,
    /// Held by the reader who asks the state on behalf of all. It is not held towards any socket.
    asking: tokio::sync::Mutex<()>,
    /// Taken before the state is first asked, so that nothing happens in between.
    hints: watch::Receiver<u64>,
}

/// A reader's hold on a tail, which goes with its last reader.
pub(crate) struct Follower {
    tails: Arc<Tails>,
    tail: Arc<Tail>,
}

impl Tails {
    pub(crate) fn new(metrics: &Metrics) -> Arc<Self> {
        Self::with(BYTES_MAX, metrics.tail_bytes.clone())
    }

    fn with(bytes_max: usize, bytes: IntGauge) -> Arc<Self> {
        Arc::new(Self {
            rooms: Mutex::default(),
            bytes_max,
            bytes,
        })
    }

    fn rooms(&self) -> MutexGuard<'_, Rooms> {
        self.rooms.lock().expect("nothing panics while it holds the lock")
    }

    /// `hints` are taken for the first reader of the room.
    pub(crate) fn follow(self: &Arc<Self>, room: RoomId, hints: impl FnOnce() -> watch::Receiver<u64>) -> Follower {
        let mut rooms = self.rooms();
        let followed = rooms.followed.entry(room).or_insert_with(|| Followed {
            tail: Arc::new(Tail {
                room,
                ring: Mutex::default(),
                asking: tokio::sync::Mutex::default(),
                hints: hints(),
            }),
            readers: 0,
            age: 0,
        });
        followed.readers += 1;
        Follower {
            tails: Arc::clone(self),
            tail: Arc::clone(&followed.tail),
        }
    }

    fn leave(&self, room: RoomId) {
        let mut rooms = self.rooms();
        let Some(followed) = rooms.followed.get_mut(&room) else {
            return;
        };
        followed.readers -= 1;
        if followed.readers > 0 {
            return;
        }
        if let Some(Followed { tail, age, .. }) = rooms.followed.remove(&room) {
            rooms.by_age.remove(&age);
            rooms.bytes -= tail.ring().bytes();
        }
        self.bytes.set(gauge(rooms.bytes));
    }

    /// Changes the ring of a room, and forgets the quietest rooms where it has grown too much for all.
    fn change<R>(&self, tail: &Tail, change: impl FnOnce(&mut Ring) -> R) -> R {
        let mut rooms = self.rooms();
        let (changed, before, after) = {
            let mut ring = tail.ring();
            let before = ring.bytes();
            (change(&mut ring), before, ring.bytes())
        };
        rooms.bytes = rooms.bytes - before + after;
        rooms.touch(tail.room, after > 0);
        while rooms.bytes > self.bytes_max && rooms.forget_oldest() {}
        self.bytes.set(gauge(rooms.bytes));
        changed
    }
}

fn gauge(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

impl Rooms {
    /// The room is the youngest from now on, if something is kept of it.
    fn touch(&mut self, room: RoomId, is_kept: bool) {
        let Some(followed) = self.followed.get_mut(&room) else {
            return;
        };
        self.by_age.remove(&followed.age);
        if is_kept {
            self.ages += 1;
            followed.age = self.ages;
            self.by_age.insert(followed.age, room);
        }
    }

    /// False when nothing is kept.
    fn forget_oldest(&mut self) -> bool {
        let Some((_, room)) = self.by_age.pop_first() else {
            return false;
        };
        if let Some(followed) = self.followed.get(&room) {
            let mut ring = followed.tail.ring();
            self.bytes -= ring.bytes();
            ring.forget();
        }
        true
    }
}

impl Tail {
    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().expect("nothing panics while it holds the lock")
    }

    /// Whoever holds it asks the state on behalf of all.
    pub(super) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.asking.lock().await
    }
}

impl Follower {
    pub(super) fn hints(&self) -> watch::Receiver<u64> {
        self.tail.hints.clone()
    }

    /// The last change of the room that this node was told of.
    pub(super) fn told(&self) -> Revision {
        Revision(*self.tail.hints.borrow())
    }

    pub(super) fn look(&self, position: Position) -> Look {
        // First what is known: the ring may become newer meanwhile, and not older.
        let told = self.told();
        self.tail.ring().look(position, told)
    }

    pub(super) fn tail(&self) -> Arc<Tail> {
        Arc::clone(&self.tail)
    }

    pub(super) fn question(&self, position: Position) -> (Position, u32) {
        self.tail.ring().question(position)
    }

    /// See [`Ring::extend`].
    pub(super) fn extend(
        &self,
        after: Position,
        written: Written,
        next: Position,
        more: bool,
        position: Position,
    ) -> Option<(Vec<Piece>, Position)> {
        let extend = |ring: &mut Ring| ring.extend(after, written, next, more, position);
        self.tails.change(&self.tail, extend)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.tails.leave(self.tail.room);
    }
}

#[cfg(test)]
mod tests {
    use super::super::ring::testing::{at, room_changes};
    use super::*;

    /// Somebody who follows the room, and has put `changes` into its tail.
    fn fill(tails: &Arc<Tails>, room: u64, changes: u64) -> Follower {
        let follower = tails.follow(RoomId(room), || watch::channel(changes).1);
        let written = super::super::ring::write("hall", room_changes(1..=changes));
        follower.extend(at(0), written, at(changes), false, at(0));
        follower
    }

    fn kept(follower: &Follower) -> bool {
        matches!(follower.look(at(0)), Look::Pieces { .. })
    }

    #[test]
    fn the_rooms_that_were_quiet_for_longest_are_forgotten_first() {
        let gauge = IntGauge::new("bytes", "bytes").unwrap();
        let one_room = {
            let tails = Tails::with(usize::MAX, gauge.clone());
            let _follower = fill(&tails, 1, 10);
            usize::try_from(gauge.get()).unwrap()
        };
        let tails = Tails::with(2 * one_room, gauge.clone());
        let (first, second) = (fill(&tails, 1, 10), fill(&tails, 2, 10));
        // The first one is the younger from now on.
        first.extend(
            at(10),
            super::super::ring::write("hall", Vec::new()),
            at(11),
            false,
            at(10),
        );
        let third = fill(&tails, 3, 10);
        assert_eq!([&first, &second, &third].map(kept), [true, false, true]);
        assert_eq!(second.look(at(0)), Look::Elsewhere);
        assert_eq!(second.look(at(10)), Look::Nothing, "who is at its end loses nothing");
        assert_eq!(usize::try_from(gauge.get()).unwrap(), 2 * one_room);
        // A tail is there as long as one of its readers.
        let again = tails.follow(RoomId(3), || unreachable!("the tail has its hints"));
        drop(third);
        assert!(kept(&again));
        drop((first, second, again));
        assert_eq!((gauge.get(), tails.rooms().bytes), (0, 0));
        assert!(tails.rooms().followed.is_empty() && tails.rooms().by_age.is_empty());
    }
}
