//! A process that writes is killed again and again. Whatever it was doing, the next start must find
//! all that was promised, and must not take the remains of a crash for damage.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;

use quorate_state_machine::Change;

use crate::check_agreement;
use crate::log::suite::no_failure;
use crate::log::{LogId, LogOptions, LogStore, Record, RocksLog, Vote};
use crate::node_dir::NodeDir;
use crate::state::{Applied, RocksState, StateOptions, StateStore};

/// Tells the child where to write; without it the child does nothing.
const CHILD_DIR: &str = "QUORATE_TEST_CRASH_DIR";
const ROUNDS: u32 = 12;
/// The state is this many rows, which are overwritten in turn.
const ROWS: u64 = 40;
/// Entries that the log keeps.
const KEPT: u64 = 60;

fn id(index: u64) -> LogId {
    LogId {
        term: 1,
        leader: 1,
        index,
    }
}

/// Buffers of 64 KiB, so that files are begun, completed and removed all the time.
fn open(dir: &NodeDir) -> (RocksLog, RocksState) {
    let log = LogOptions {
        write_buffer_bytes: 64 << 10,
        ..LogOptions::default()
    };
    let state = StateOptions {
        write_buffer_bytes: 64 << 10,
        ..StateOptions::default()
    };
    let log = RocksLog::open(&dir.log_dir(), log, no_failure()).unwrap();
    (log, RocksState::open(&dir.state_dir(), state, no_failure()).unwrap())
}

fn row(index: u64) -> (Vec<u8>, Vec<u8>) {
    let value = index.to_be_bytes().repeat(200);
    (format!("row {:02}", index % ROWS).into_bytes(), value)
}

/// What the state holds after an entry; they count from 1.
fn rows_after(index: u64) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows: Vec<_> = (index.saturating_sub(ROWS) + 1..=index).map(row).collect();
    rows.sort();
    rows
}

/// Checks what a killed process has left; gives the last entry.
fn check(dir: &NodeDir, log: &RocksLog, state: &RocksState) -> u64 {
    let applied = state.applied().unwrap().last;
    check_agreement(dir, &log.state(), applied, state.installed()).unwrap();
    let rows = state.read(|view| view.scan(b"row", b"rox", false, 999).unwrap());
    let at = applied.map_or(0, |applied| applied.index);
    assert!(rows == rows_after(at), "the state is not what it was after {at}");
    let first = log.state().purged.map_or(1, |purged| purged.index + 1);
    let last = log.state().last.map_or(0, |last| last.index);
    let indexes = log.read(0, u64::MAX, usize::MAX).unwrap();
    let indexes: Vec<u64> = indexes.iter().map(|record| record.id.index).collect();
    assert_eq!(indexes, (first..=last).collect::<Vec<_>>());
    last
}

/// Not a test: what the test below starts. It tells each entry that was promised, and never ends.
#[test]
fn the_child() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let dir = NodeDir::open(Path::new(&dir), 1).unwrap();
    let (log, state) = open(&dir);
    let mut last = check(&dir, &log, &state);
    let done = || Box::new(|result: std::io::Result<()>| result.unwrap());
    let vote = Vote {
        term: 1,
        leader: 1,
        committed: true,
    };
    log.save_vote(vote, done());
    let apply = |index: u64| {
        let (key, value) = row(index);
        let applied = Applied {
            last: Some(id(index)),
            membership: Vec::new(),
        };
        state.write(vec![Change::Put { key, value }], &applied).unwrap();
    };
    let applied = state.applied().unwrap().last.map_or(0, |applied| applied.index);
    (applied + 1..=last).for_each(apply);
    loop {
        let (to, from) = channel();
        let records = (last + 1..=last + 5).map(|index| Record {
            id: id(index),
            payload: vec![7; 1500].into(),
        });
        log.append(records.collect(), Box::new(move |result| to.send(result).unwrap()));
        from.recv().unwrap().unwrap();
        (last + 1..=last + 5).for_each(apply);
        last += 5;
        println!("promised {last}");
        std::io::stdout().flush().unwrap();
        if last.is_multiple_of(25) && last > KEPT {
            state.sync().unwrap();
            log.purge(id(last - KEPT), done());
        }
        if last.is_multiple_of(200) {
            let checkpoint = dir.tmp_dir().join("checkpoint");
            state.checkpoint(&checkpoint).unwrap();
            match last % 400 {
                0 => drop(state.install(&checkpoint).unwrap()),
                _ => fs::remove_dir_all(&checkpoint).unwrap(),
            }
        }
    }
}

#[test]
fn a_killed_process_leaves_all_that_it_had_promised() {
    let tmp = tempfile::tempdir().unwrap();
    let mut promised = 0;
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::the_child", "--nocapture"])
            .env(CHILD_DIR, tmp.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok);
        let number = |line: String| {
            line.rsplit_once("promised ")
                .and_then(|(_, number)| number.parse::<u64>().ok())
        };
        let first = lines.find_map(number).expect("the child has failed at its start");
        assert!(first > promised, "{first} after {promised}");
        promised = first;
        // It is killed wherever it is after so many promises.
        for _ in 0..5 + 37 * round % 60 {
            let line = lines.next().expect("the child never ends");
            promised = number(line).expect("it says nothing else");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // The last line may be cut off; it then says less than was promised.
        promised = lines.filter_map(number).fold(promised, u64::max);
    }
    let dir = NodeDir::open(tmp.path(), 1).unwrap();
    let (log, state) = open(&dir);
    let last = check(&dir, &log, &state);
    assert!(last >= promised, "{last} of {promised}");
}
