//! One file: whoever waits is written in one piece and synced once, then all of them are answered.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use tokio::sync::{mpsc, oneshot};

/// Messages that wait to be written. Whoever finds all places taken waits.
const QUEUE: usize = 4096;

pub(super) struct Journal {
    orders: mpsc::Sender<Order>,
    written: Arc<Written>,
}

#[derive(Debug)]
struct Order {
    room: String,
    text: String,
    placed: oneshot::Sender<u64>,
}

/// What was synced, for reading.
struct Written {
    file: File,
    first_seq: u64,
    /// By room, in the order of seqs: where a text begins, and its length. Held for one batch or one look-up, never
    /// across an await.
    rooms: Mutex<HashMap<String, Vec<(u64, usize)>>>,
}

impl Journal {
    /// Of each room the first message gets `first_seq`.
    pub(super) fn open(path: &Path, first_seq: u64) -> Result<Self> {
        let file = OpenOptions::new().read(true).append(true).create_new(true).open(path);
        let file = file.with_context(|| format!("failed to create {}", path.display()))?;
        let written = Arc::new(Written {
            file,
            first_seq,
            rooms: Mutex::default(),
        });
        let (orders, taken) = mpsc::channel(QUEUE);
        let writer = written.clone();
        std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || write(&writer, taken))?;
        Ok(Self { orders, written })
    }

    /// Returns the message's seq, when it is synced.
    pub(super) async fn append(&self, room: String, text: String) -> u64 {
        let (placed, seq) = oneshot::channel();
        let order = Order { room, text, placed };
        // The writer ends with the process, and no earlier.
        self.orders.send(order).await.expect("the writer is there");
        seq.await.expect("the writer answers each order")
    }

    pub(super) fn read(&self, room: &str, seq: u64) -> Result<Option<String>> {
        let place = {
            let rooms = self.written.rooms.lock().expect("no holder of this lock panics");
            let index = seq.checked_sub(self.written.first_seq);
            let texts = rooms.get(room);
            texts.and_then(|texts| texts.get(usize::try_from(index?).ok()?).copied())
        };
        let Some((offset, length)) = place else {
            return Ok(None);
        };
        let mut text = vec![0; length];
        self.written.file.read_exact_at(&mut text, offset)?;
        Ok(Some(String::from_utf8(text)?))
    }
}

/// Ends the process when the disk fails: nothing may be acknowledged then.
fn write(written: &Written, mut orders: mpsc::Receiver<Order>) {
    let mut bytes = Vec::new();
    let mut batch = Vec::new();
    let mut end = 0;
    while let Some(first) = orders.blocking_recv() {
        batch.push(first);
        while let Ok(next) = orders.try_recv() {
            batch.push(next);
        }
        let mut places = Vec::with_capacity(batch.len());
        for Order { room, text, .. } in &batch {
            // Enough to read the file without the index: lengths, room, text.
            bytes.extend((room.len() as u32).to_le_bytes());
            bytes.extend((text.len() as u32).to_le_bytes());
            bytes.extend(room.as_bytes());
            places.push((end + bytes.len() as u64, text.len()));
            bytes.extend(text.as_bytes());
        }
        let synced = (&written.file)
            .write_all(&bytes)
            .and_then(|()| written.file.sync_data());
        if let Err(error) = synced {
            eprintln!("failed to write the journal: {error}");
            std::process::exit(1);
        }
        end += bytes.len() as u64;
        bytes.clear();
        let mut rooms = written.rooms.lock().expect("no holder of this lock panics");
        for (Order { room, placed, .. }, place) in batch.drain(..).zip(places) {
            let texts = rooms.entry(room).or_default();
            texts.push(place);
            // Who has given up is gone.
            let _ = placed.send(written.first_seq + texts.len() as u64 - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;

    use super::*;

    #[tokio::test]
    async fn each_room_counts_for_itself_and_what_was_placed_is_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("journal");
        let journal = Journal::open(&path, 11).expect("a file");
        let texts: Vec<String> = (0..50).map(|number| format!("text {number}")).collect();
        let room = |number: usize| if number.is_multiple_of(3) { "茶" } else { "other" };
        let appended = texts.iter().enumerate();
        let seqs = join_all(appended.map(|(number, text)| journal.append(room(number).into(), text.clone()))).await;
        for (number, seq) in seqs.iter().enumerate() {
            let found = journal.read(room(number), *seq).expect("the file is there");
            assert_eq!(found.as_deref(), Some(&*texts[number]));
        }
        let mut counted: Vec<u64> = seqs.iter().step_by(3).copied().collect();
        counted.sort_unstable();
        assert_eq!(counted, (11..28).collect::<Vec<u64>>());
        for (room, seq) in [("茶", 10), ("茶", 28), ("茶", 0), ("none", 11)] {
            assert_eq!(journal.read(room, seq).expect("the file is there"), None);
        }
        assert!(Journal::open(&path, 1).is_err(), "another's file is not written to");
    }
}
