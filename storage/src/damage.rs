//! Every file of a node's directory, damaged in every way that a disk knows: the node must not open,
//! and say what is damaged; or have all that it had promised, and answer rightly.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use quorate_state_machine::{Change, View};

use crate::check_agreement;
use crate::log::suite::{copy_tree, no_failure};
use crate::log::{LogId, LogOptions, LogState, LogStore, Record, RocksLog, Vote};
use crate::node_dir::NodeDir;
use crate::state::{Applied, RocksState, StateOptions, StateStore};

/// The state was synced with this entry, then the log was purged up to it.
const PURGED: u64 = 219;
const LAST: u64 = 259;

fn id(index: u64) -> LogId {
    LogId {
        term: 3,
        leader: 1,
        index,
    }
}

/// A thousand bytes that do not compress, told by `seed`.
fn noise(seed: u64) -> Vec<u8> {
    (0..125u64)
        .flat_map(|at| xxhash_rust::xxh3::xxh3_64_with_seed(&at.to_be_bytes(), seed).to_be_bytes())
        .collect()
}

fn record(index: u64) -> Record {
    Record {
        id: id(index),
        payload: Bytes::from(noise(index)),
    }
}

/// Each entry adds a row and replaces another.
fn changes(index: u64) -> Vec<Change> {
    let put = |key: String, value| Change::Put {
        key: key.into_bytes(),
        value,
    };
    vec![
        put(format!("row {index:04}"), noise(index)),
        put("last".to_owned(), index.to_string().into_bytes()),
    ]
}

fn applied(index: u64) -> Applied {
    Applied {
        last: Some(id(index)),
        membership: b"members".to_vec(),
    }
}

type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// The rows after an entry.
fn rows_after(index: Option<u64>) -> Rows {
    let Some(index) = index else { return Vec::new() };
    let last = (b"last".to_vec(), index.to_string().into_bytes());
    let row = |index: u64| (format!("row {index:04}").into_bytes(), noise(index));
    std::iter::once(last).chain((0..=index).map(row)).collect()
}

fn vote() -> Vote {
    Vote {
        term: 3,
        leader: 1,
        committed: true,
    }
}

/// Hardly any cache, so that all is read from disk.
fn open_log(dir: &NodeDir) -> Result<RocksLog, crate::OpenError> {
    let options = LogOptions {
        cache_bytes_max: 300,
        ..LogOptions::default()
    };
    RocksLog::open(&dir.log_dir(), options, no_failure())
}

fn open_state(dir: &NodeDir) -> Result<RocksState, crate::OpenError> {
    RocksState::open(&dir.state_dir(), StateOptions::default(), no_failure())
}

/// What a node leaves behind that has installed a snapshot at 99, purged its log up to `PURGED` and
/// applied `LAST`. With a restart in between, the log has both tables and RocksDB's log.
fn make_node(path: &Path, restarted: bool) -> String {
    make_node_seen(path, restarted, |_, _| {})
}

/// The same; `look` sees the directory when nothing but the snapshot, at entry 99, is in the state, and when all is.
fn make_node_seen(path: &Path, restarted: bool, look: impl Fn(&NodeDir, u64)) -> String {
    let dir = NodeDir::open(path, 1).unwrap();
    dir.set_cluster_id("c1").unwrap();
    let done = || Box::new(|result: std::io::Result<()>| result.unwrap());
    let advance = |log: &RocksLog, state: &RocksState, entries: std::ops::RangeInclusive<u64>| {
        for index in entries {
            log.append(vec![record(index)], done());
            state.write(changes(index), &applied(index)).unwrap();
        }
    };
    let (log, state) = (open_log(&dir).unwrap(), open_state(&dir).unwrap());
    log.save_vote(vote(), done());
    advance(&log, &state, 0..=99);
    let checkpoint = dir.tmp_dir().join("snapshot");
    state.checkpoint(&checkpoint).unwrap();
    state.install(&checkpoint).unwrap();
    look(&dir, 99);
    advance(&log, &state, 100..=PURGED);
    state.sync().unwrap();
    log.purge(id(PURGED), done());
    log.save_committed(Some(id(PURGED)));
    if !restarted {
        advance(&log, &state, PURGED + 1..=LAST);
        look(&dir, LAST);
        return dir.identity().store_id;
    }
    advance(&log, &state, PURGED + 1..=LAST - 20);
    drop((log, state));
    // Opening writes RocksDB's log into tables.
    let (log, state) = (open_log(&dir).unwrap(), open_state(&dir).unwrap());
    advance(&log, &state, LAST - 19..=LAST);
    dir.identity().store_id
}

/// How a node is found.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Complete,
    /// The state ends here; the log has the rest.
    Behind(Option<u64>),
    Refused(String),
    /// It opens and answers, but wrongly.
    Lying(String),
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Found::Complete => write!(f, "complete"),
            Found::Behind(at) => write!(f, "behind, at {at:?}"),
            Found::Refused(reason) => write!(f, "refused: {reason}"),
            Found::Lying(how) => write!(f, "LYING: {how}"),
        }
    }
}

/// Starts the node as far as storage goes and reads everything.
fn start(path: &Path, store_id: &str) -> Found {
    read_all(path, store_id).unwrap_or_else(Found::Refused)
}

fn read_all(path: &Path, store_id: &str) -> Result<Found, String> {
    let text = |error: &dyn fmt::Display| error.to_string();
    let dir = NodeDir::open(path, 1).map_err(|error| text(&error))?;
    let identity = dir.identity();
    if (identity.store_id.as_str(), identity.cluster_id.as_deref()) != (store_id, Some("c1")) {
        return Ok(Found::Lying(format!("{identity:?}")));
    }
    let log = open_log(&dir).map_err(|error| text(&error))?;
    let state = open_state(&dir).map_err(|error| text(&error))?;
    let at = state.applied().map_err(|error| text(&error))?;
    check_agreement(&dir, &log.state(), at.last, state.installed()).map_err(|error| text(&error))?;

    let expected = LogState {
        purged: Some(id(PURGED)),
        last: Some(id(LAST)),
        committed: Some(id(PURGED)),
        vote: Some(vote()),
    };
    if log.state() != expected {
        return Ok(Found::Lying(format!("{:?}", log.state())));
    }
    let records = log.read(0, u64::MAX, usize::MAX).map_err(|error| text(&error))?;
    if records != (PURGED + 1..=LAST).map(record).collect::<Vec<_>>() {
        return Ok(Found::Lying("other entries".to_owned()));
    }
    let at = at.last.map(|last| last.index);
    let scan = |view: &dyn View| view.scan(&[], &[0xff], false, usize::MAX);
    let rows = state.read(scan).map_err(|error| text(&error))?;
    if rows != rows_after(at) {
        return Ok(Found::Lying(format!("other rows after {at:?}")));
    }
    state.state_hash().map_err(|error| text(&error))?;
    if at == Some(LAST) {
        return Ok(Found::Complete);
    }
    // It is rebuilt from what the log has.
    for index in at.map_or(0, |at| at + 1)..=LAST {
        state
            .write(changes(index), &applied(index))
            .map_err(|error| text(&error))?;
    }
    assert!(
        state.read(scan).map_err(|error| text(&error))? == rows_after(Some(LAST)),
        "wrong rows"
    );
    Ok(Found::Behind(at))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    FlippedBit,
    Halved,
    /// The last bytes are missing, as of a write that never reached the disk.
    Torn,
    Deleted,
}

impl Damage {
    fn inflict(self, file: &Path) {
        let mut bytes = fs::read(file).unwrap();
        match self {
            Damage::FlippedBit => {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                fs::write(file, bytes).unwrap();
            }
            Damage::Halved => fs::write(file, &bytes[..bytes.len() / 2]).unwrap(),
            Damage::Torn => fs::write(file, &bytes[..bytes.len() - bytes.len().min(7)]).unwrap(),
            Damage::Deleted => fs::remove_file(file).unwrap(),
        }
    }
}

/// What must become of a node with a damaged file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Must {
    BeRefused,
    BeComplete,
    /// Whatever is found is right, but it need not be refused.
    NotLie,
}

/// `file` is relative to the node's directory.
fn must(file: &str, damage: Damage) -> Must {
    use Damage::{FlippedBit, Torn};
    let name = file.rsplit('/').next().unwrap_or(file);
    match (name, damage) {
        ("IDENTITY", _) if file == "IDENTITY" => Must::BeRefused,
        // One of its halves is enough, and without it a loss could not be noticed, but nothing is lost.
        ("log.mark", _) => Must::BeComplete,
        ("POINTER" | "CURRENT", _) => Must::BeRefused,
        // RocksDB makes these anew, or can do without.
        ("LOCK" | "LOG" | "IDENTITY", _) => Must::BeComplete,
        (name, _) if name.starts_with("OPTIONS-") || name.starts_with("LOG.old.") => Must::BeComplete,
        // RocksDB takes a torn end for a change of its tables that was never completed.
        (name, Torn) if name.starts_with("MANIFEST-") => Must::NotLie,
        (name, _) if name.starts_with("MANIFEST-") => Must::BeRefused,
        // The bit may lie where nobody reads.
        (name, FlippedBit) if name.ends_with(".sst") => Must::NotLie,
        (name, _) if name.ends_with(".sst") => Must::BeRefused,
        // One whose writes are in tables may still lie there.
        (name, _) if name.ends_with(".log") => Must::NotLie,
        _ => panic!("what is {file}?"),
    }
}

/// All files below `dir` that are not empty, relative to it.
fn files(dir: &Path) -> Vec<PathBuf> {
    fn collect(dir: &Path, root: &Path, out: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => collect(&path, root, out),
                false if fs::metadata(&path).unwrap().len() == 0 => {}
                false => out.push(path.strip_prefix(root).unwrap().to_owned()),
            }
        }
    }
    let mut out = Vec::new();
    collect(dir, dir, &mut out);
    out.sort();
    out
}

/// Damages each file that `choose` takes, one at a time. What came of it must mention all `kinds`, so
/// that no kind of file silently stops being there.
fn damage_each(choose: impl Fn(&str) -> bool, kinds: &[&str]) {
    let tmp = tempfile::tempdir().unwrap();
    let (good, node) = (tmp.path().join("good"), tmp.path().join("node"));
    let store_id = make_node(&good, true);
    copy_tree(&good, &node);
    assert_eq!(start(&node, &store_id), Found::Complete);
    let mut table = String::new();
    let mut failed = false;
    for file in files(&good) {
        let name = file.to_str().unwrap();
        if !choose(name) {
            continue;
        }
        for damage in [Damage::FlippedBit, Damage::Halved, Damage::Torn, Damage::Deleted] {
            fs::remove_dir_all(&node).unwrap();
            copy_tree(&good, &node);
            damage.inflict(&node.join(&file));
            let found = start(&node, &store_id);
            let right = match (must(name, damage), &found) {
                (Must::BeRefused | Must::NotLie, Found::Refused(reason)) => reason.contains(&*node.to_string_lossy()),
                (Must::BeComplete, found) => *found == Found::Complete,
                (Must::NotLie, Found::Complete | Found::Behind(_)) => true,
                (Must::NotLie, Found::Lying(_)) | (Must::BeRefused, _) => false,
            };
            failed |= !right;
            let verdict = if right { "right" } else { "WRONG" };
            table.push_str(&format!("{verdict} {name} {damage:?}: {found}\n"));
        }
    }
    assert!(!failed, "{table}");
    for kind in kinds {
        assert!(table.contains(kind), "there is no {kind} in\n{table}");
    }
}

#[test]
fn damage_to_the_log_is_never_a_wrong_answer() {
    let kinds = [
        "log/CURRENT",
        "log/MANIFEST-",
        ".sst",
        ".log Halved: refused",
        ".sst FlippedBit: refused",
    ];
    damage_each(|file| file.starts_with("log/"), &kinds);
}

#[test]
fn damage_to_the_state_is_never_a_wrong_answer() {
    let kinds = [
        "state/gen-2/CURRENT",
        "state/gen-2/MANIFEST-",
        "state/POINTER",
        ".sst FlippedBit: refused",
    ];
    damage_each(|file| file.starts_with("state/"), &kinds);
}

/// RocksDB would read these for ever: neither a start nor an end.
#[test]
fn a_record_of_a_kind_that_is_never_written_is_refused() {
    let tmp = tempfile::tempdir().unwrap();
    let (good, node) = (tmp.path().join("good"), tmp.path().join("node"));
    let store_id = make_node(&good, true);
    let mut damaged = 0;
    for file in files(&good) {
        let name = file.to_str().unwrap();
        if !name.contains("/MANIFEST-") && !name.ends_with(".log") {
            continue;
        }
        let mut bytes = fs::read(good.join(&file)).unwrap();
        // A record begins with a checksum of 4 bytes, its length and its kind. Where the log's writer has
        // gathered everything into one, there is no second.
        let second = 7 + usize::from(u16::from_le_bytes([bytes[4], bytes[5]]));
        let at = if second < bytes.len() { second } else { 0 };
        assert_eq!(bytes[at + 6], 1, "a whole record in {name}");
        bytes[at + 6] ^= 4;
        if node.exists() {
            fs::remove_dir_all(&node).unwrap();
        }
        copy_tree(&good, &node);
        fs::write(node.join(&file), bytes).unwrap();
        for _ in 0..2 {
            match start(&node, &store_id) {
                Found::Refused(reason) => assert!(
                    reason.contains(&format!("{name} is damaged: the record at byte {at} is of kind 5")),
                    "{reason}"
                ),
                found => panic!("{name}: {found}"),
            }
        }
        damaged += 1;
    }
    assert!(
        damaged >= 3,
        "a MANIFEST and a log of RocksDB's in the log, a MANIFEST in the state"
    );
}

#[test]
fn damage_to_the_node_s_own_files_is_never_a_wrong_answer() {
    damage_each(|file| !file.contains('/'), &["IDENTITY", "log.mark"]);
}

/// A process that is killed takes along what its state had in memory.
#[test]
fn a_state_that_has_lost_what_was_not_synced_is_rebuilt() {
    let tmp = tempfile::tempdir().unwrap();
    let (node, killed) = (tmp.path().join("node"), tmp.path().join("killed"));
    let store_id = make_node_seen(&node, false, |dir, at| {
        if at == LAST {
            copy_tree(&dir.state_dir(), &killed);
        }
    });
    fs::remove_dir_all(node.join("state")).unwrap();
    fs::rename(killed, node.join("state")).unwrap();
    assert_eq!(start(&node, &store_id), Found::Behind(Some(PURGED)));
    assert_eq!(start(&node, &store_id), Found::Complete, "it was closed since");
}

/// The state is whole, as far as it goes.
#[test]
fn a_state_that_has_lost_what_was_synced_is_refused() {
    let tmp = tempfile::tempdir().unwrap();
    let (node, older) = (tmp.path().join("node"), tmp.path().join("older"));
    let store_id = make_node_seen(&node, false, |dir, at| {
        if at == 99 {
            copy_tree(&dir.state_dir(), &older);
        }
    });
    fs::remove_dir_all(node.join("state")).unwrap();
    fs::rename(older, node.join("state")).unwrap();
    for _ in 0..2 {
        match start(&node, &store_id) {
            Found::Refused(reason) => {
                assert!(
                    reason.contains("/state has lost data: it has entries up to 3-1-99"),
                    "{reason}"
                );
                assert!(reason.contains("up to 3-1-219"), "{reason}");
            }
            found => panic!("{found}"),
        }
    }
}

/// A directory that is missing altogether.
#[test]
fn a_missing_state_is_only_rebuilt_from_a_whole_log() {
    let tmp = tempfile::tempdir().unwrap();
    let store_id = make_node(&tmp.path().join("node"), true);
    let node = tmp.path().join("node");
    fs::remove_dir_all(node.join("state")).unwrap();
    // The empty state that the first start makes must not pass for one at the next.
    for _ in 0..2 {
        match start(&node, &store_id) {
            Found::Refused(reason) => {
                assert!(reason.contains("/state has lost data: it has nothing"), "{reason}");
                assert!(reason.contains("up to 3-1-219"), "{reason}");
            }
            found => panic!("{found}"),
        }
    }
    let whole = tmp.path().join("whole");
    let dir = NodeDir::open(&whole, 1).unwrap();
    let log = open_log(&dir).unwrap();
    for index in 0..=LAST {
        log.append(vec![record(index)], Box::new(|result| result.unwrap()));
    }
    log.close();
    let state = open_state(&dir).unwrap();
    let at = state.applied().unwrap().last;
    check_agreement(&dir, &log.state(), at, state.installed()).unwrap();
}

#[test]
fn a_missing_log_is_refused_with_and_without_its_mark() {
    for mark in [true, false] {
        let tmp = tempfile::tempdir().unwrap();
        let store_id = make_node(tmp.path(), true);
        fs::remove_dir_all(tmp.path().join("log")).unwrap();
        if !mark {
            fs::remove_file(tmp.path().join("log.mark")).unwrap();
        }
        for _ in 0..2 {
            match start(tmp.path(), &store_id) {
                Found::Refused(reason) => assert!(reason.contains("/log has lost acknowledged data"), "{reason}"),
                found => panic!("{found}"),
            }
        }
    }
}
