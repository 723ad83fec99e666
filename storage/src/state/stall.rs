//! A write that RocksDB lets wait, because flushes or compactions are behind, by itself on its thread.
//!
//! It is made on a thread of the runtime, which has others to serve meanwhile. Doing every write aside would cost each of them
//! two wake-ups, so it is done only for those that have to wait.

use rocksdb::{DB, Error, ErrorKind, WriteBatch, WriteOptions};

use crate::aside::aside;

/// Writes, and waits if RocksDB wants it. `batch` is asked for a second time then: the first one changed nothing.
pub(super) fn write(db: &DB, batch: impl Fn() -> WriteBatch) -> Result<(), Error> {
    match db.write_opt(batch(), &options(true)) {
        Err(error) if error.kind() == ErrorKind::Incomplete => aside(|| db.write_opt(batch(), &options(false))),
        written => written,
    }
}

fn options(at_once: bool) -> WriteOptions {
    let mut options = WriteOptions::default();
    // The Raft log has it.
    options.disable_wal(true);
    options.set_no_slowdown(at_once);
    options
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use rocksdb::compaction_filter::Decision;
    use rocksdb::{FlushOptions, Options};

    use super::*;

    const WAIT_MAX: Duration = Duration::from_secs(20);

    /// The compaction that would let the write go on waits for another task of a runtime with one worker.
    #[test]
    fn others_go_on_while_a_write_waits() {
        let dir = tempfile::tempdir().unwrap();
        let (go_on, wait) = mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let mut db_options = Options::default();
        db_options.create_if_missing(true);
        db_options.set_level_zero_file_num_compaction_trigger(2);
        db_options.set_level_zero_slowdown_writes_trigger(2);
        db_options.set_level_zero_stop_writes_trigger(2);
        db_options.set_compaction_filter("waits", move |_, _, _| {
            // When the sender is gone it goes on, and after a while in any case, so that a failure is one and not a hang.
            let _ = wait.lock().unwrap().recv_timeout(WAIT_MAX);
            Decision::Keep
        });
        let db = DB::open(&db_options, dir.path()).unwrap();
        let row = |value: &'static str| {
            move || {
                let mut batch = WriteBatch::default();
                // Tables that overlap: others would be moved as they are, and shown to no filter.
                batch.put("a", value);
                batch.put("z", value);
                batch
            }
        };
        let mut flush = FlushOptions::default();
        flush.set_wait(true);
        for value in ["first", "second"] {
            write(&db, row(value)).unwrap();
            db.flush_opt(&flush).unwrap();
        }
        let refused = db.write_opt(row("third")(), &options(true)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Incomplete);

        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap();
        let db = std::sync::Arc::new(db);
        let writer = runtime.spawn({
            let db = db.clone();
            async move { write(&db, row("third")) }
        });
        let begun = Instant::now();
        runtime.spawn(async move { drop(go_on) });
        runtime.block_on(writer).unwrap().unwrap();
        assert!(begun.elapsed() < WAIT_MAX, "the other task had to wait for the write");
        assert_eq!(db.get("a").unwrap().unwrap(), b"third");
    }
}
