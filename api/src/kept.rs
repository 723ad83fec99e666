//! Messages as they were written out lately: who reads a page that others have just read gets their bytes.
//!
//! Nothing here decides who may read: a page comes here from the state that has admitted the caller, and that state
//! says which of the room's messages are on it. What is kept of a room was true at a revision of the store. A state of
//! that revision takes it as it is; a later one first says whether any message of the room was edited or redacted since
//! ([`StoredPage::edited_since`]), and if so all that is kept of the room is void; an earlier one takes nothing. So a
//! node needs no word of changes, and whether it leads, follows or was just given another state makes no difference.

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard};

use prometheus::{IntCounter, IntGauge};
use quorate_state_machine::query::StoredPage;
use quorate_state_machine::{Epoch, Fatal, Revision, RoomId};

use crate::message;
use crate::metrics::Metrics;

/// Of all rooms together, with what it takes to find them again: some 30,000 messages of a line or two. Beyond it
/// those are forgotten that were not read for longest.
const KEPT_BYTES_MAX: usize = 16 << 20;
/// Rooms are divided among so many, so that readers of different rooms seldom wait for each other.
const SHARDS: usize = 8;
/// What each shard keeps of messages, and of what holds for their rooms. Half of it is for what was used lately.
const SHARD_BYTES_MAX: usize = KEPT_BYTES_MAX / SHARDS;
const ROOMS_BYTES_MAX: usize = SHARD_BYTES_MAX / 16;
const MESSAGES_BYTES_MAX: usize = SHARD_BYTES_MAX - ROOMS_BYTES_MAX;
/// Whoever reads larger pages goes through a room once, and would only drive out what others come back for.
const PAGE_MESSAGES_MAX: usize = 100;
/// Of a message or a room beside its bytes: its place in the map, and in the allocator.
const OVERHEAD_BYTES: usize = 128;

const _: () = assert!(
    MESSAGES_BYTES_MAX / 2 > PAGE_MESSAGES_MAX * (OVERHEAD_BYTES + 1024),
    "a usual page fits"
);

pub(crate) struct KeptMessages {
    /// Held while one page is copied out or in, never while the state is asked.
    shards: [Mutex<Shard>; SHARDS],
    written: IntCounter,
    reused: IntCounter,
    bytes: IntGauge,
}

struct Shard {
    rooms: Generations<RoomId, Standing>,
    messages: Generations<(RoomId, u64), Kept>,
    /// Numbers given to a [`Standing`] so far.
    numbers: u64,
    /// As the metrics have it.
    bytes_shown: usize,
}

impl Default for Shard {
    fn default() -> Self {
        Self {
            rooms: Generations::new(ROOMS_BYTES_MAX),
            messages: Generations::new(MESSAGES_BYTES_MAX),
            numbers: 0,
            bytes_shown: 0,
        }
    }
}

/// What holds for all that is kept of a room under this number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Standing {
    epoch: Epoch,
    /// Up to here no message of the room was edited since the first was kept.
    revision: Revision,
    /// Messages of other numbers are void. Never given again.
    number: u64,
}

struct Kept {
    number: u64,
    json: Box<[u8]>,
}

impl KeptMessages {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self {
            shards: Default::default(),
            written: metrics.messages_written.clone(),
            reused: metrics.messages_reused.clone(),
            bytes: metrics.messages_kept_bytes.clone(),
        }
    }

    /// Writes the page's messages, with commas between them.
    pub(crate) fn write(&self, page: &StoredPage<'_>, out: &mut Vec<u8>) -> Result<(), Fatal> {
        let number = match page.len() <= PAGE_MESSAGES_MAX {
            true => self.standing(page)?,
            false => None,
        };
        let Range { start, end } = page.seqs();
        let next = number.map_or(start, |number| self.copy(page, number, out));
        self.reused.inc_by(next - start);
        if next < end {
            self.written.inc_by(end - next);
            let spans = message::write_from(page, next, out)?;
            if let Some(number) = number {
                self.keep(page.room(), number, next, out, &spans);
            }
        }
        Ok(())
    }

    /// The number under which this page's state may take and keep messages of the room, if it may.
    fn standing(&self, page: &StoredPage<'_>) -> Result<Option<u64>, Fatal> {
        let (room, (epoch, revision)) = (page.room(), page.state());
        let known = self.shard(room).standing(room, epoch);
        let is_edited = match known {
            Some(known) if known.revision == revision => return Ok(Some(known.number)),
            // A reader who has waited since, or a state that was installed before: it cannot tell what became of
            // its messages.
            Some(known) if known.revision > revision => return Ok(None),
            Some(known) => page.edited_since(known.revision)?,
            None => true,
        };
        let mut shard = self.shard(room);
        let now = shard.standing(room, epoch);
        let number = match (known, now) {
            // Others have looked meanwhile, in this state or another one, and found no edit either.
            (Some(known), Some(now)) if !is_edited && known.number == now.number => now.number,
            _ if is_edited && known == now => {
                shard.numbers += 1;
                shard.numbers
            }
            // What others have kept meanwhile may be of a later state.
            _ => return Ok(None),
        };
        let revision = now.map_or(revision, |now| now.revision.max(revision));
        let standing = Standing {
            epoch,
            revision,
            number,
        };
        shard.rooms.put(room, standing, OVERHEAD_BYTES);
        Ok(Some(number))
    }

    /// Writes the page's first messages, as far as they are kept, and says which comes next.
    fn copy(&self, page: &StoredPage<'_>, number: u64, out: &mut Vec<u8>) -> u64 {
        let mut shard = self.shard(page.room());
        let Range { start, end } = page.seqs();
        for seq in start..end {
            let kept = shard.messages.get(&(page.room(), seq));
            let Some(kept) = kept.filter(|kept| kept.number == number) else {
                return seq;
            };
            match seq == start {
                true => message::reserve(out, kept.json.len(), page.len()),
                false => out.push(b','),
            }
            out.extend_from_slice(&kept.json);
        }
        end
    }

    /// Keeps messages from `seq` on, which lie in these parts of `out`.
    fn keep(&self, room: RoomId, number: u64, seq: u64, out: &[u8], spans: &[Range<usize>]) {
        let mut shard = self.shard(room);
        for (seq, span) in (seq..).zip(spans) {
            let json: Box<[u8]> = out[span.clone()].into();
            let bytes = json.len() + OVERHEAD_BYTES;
            shard.messages.put((room, seq), Kept { number, json }, bytes);
        }
        let (bytes, shown) = (shard.messages.bytes() + shard.rooms.bytes(), shard.bytes_shown);
        shard.bytes_shown = bytes;
        let signed = |bytes: usize| i64::try_from(bytes).expect("the bound is far below");
        self.bytes.add(signed(bytes) - signed(shown));
    }

    fn shard(&self, room: RoomId) -> MutexGuard<'_, Shard> {
        let shard = &self.shards[room.0 as usize % SHARDS];
        shard.lock().expect("nothing panics while it holds the lock")
    }
}

impl Shard {
    fn standing(&mut self, room: RoomId, epoch: Epoch) -> Option<Standing> {
        self.rooms
            .get(&room)
            .copied()
            .filter(|standing| standing.epoch == epoch)
    }
}

/// A map that forgets what was not used for longest, more or less: what is used is in the young generation; when that
/// is full, it becomes the old one, and what was still in the old one is gone. A key is in one of them.
struct Generations<K, V> {
    generation_bytes_max: usize,
    young: HashMap<K, Held<V>>,
    young_bytes: usize,
    old: HashMap<K, Held<V>>,
    old_bytes: usize,
}

struct Held<V> {
    value: V,
    bytes: usize,
}

impl<K: Copy + Eq + Hash, V> Generations<K, V> {
    fn new(bytes_max: usize) -> Self {
        Self {
            generation_bytes_max: bytes_max / 2,
            young: HashMap::new(),
            young_bytes: 0,
            old: HashMap::new(),
            old_bytes: 0,
        }
    }

    fn get(&mut self, key: &K) -> Option<&V> {
        if let Some(held) = self.old.remove(key) {
            self.old_bytes -= held.bytes;
            self.put_new(*key, held);
        }
        self.young.get(key).map(|held| &held.value)
    }

    fn put(&mut self, key: K, value: V, bytes: usize) {
        if let Some(held) = self.young.remove(&key) {
            self.young_bytes -= held.bytes;
        } else if let Some(held) = self.old.remove(&key) {
            self.old_bytes -= held.bytes;
        }
        self.put_new(key, Held { value, bytes });
    }

    /// What does not fit into a generation at all is not held.
    fn put_new(&mut self, key: K, held: Held<V>) {
        if held.bytes > self.generation_bytes_max {
            return;
        }
        if self.young_bytes + held.bytes > self.generation_bytes_max {
            self.old = std::mem::take(&mut self.young);
            self.old_bytes = std::mem::take(&mut self.young_bytes);
        }
        self.young_bytes += held.bytes;
        self.young.insert(key, held);
    }

    fn bytes(&self) -> usize {
        self.young_bytes + self.old_bytes
    }
}

#[cfg(test)]
mod tests;
