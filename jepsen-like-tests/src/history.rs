//! What was asked and what was answered, in the order in which it happened, as JSON lines.
//!
//! Each operation is one `invoke` and at most one end: `ok`; `fail`, only where it certainly did
//! not happen; `info`, where it may have happened. A process does one thing at a time, and one
//! whose operation ended in `info` is retired, since that operation may still take effect. Faults
//! stand in the same file, as `info` of the process `nemesis`. The shape converts to the EDN that
//! Jepsen's checkers read and to the events of Porcupine.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `f` of a message sent: `key` is the room, `value` its text, `seq` where it was put.
pub const SEND: &str = "send";
/// `f` of a linearizable read of a room: `value` is the page, `[[seq, text], …]`, and `seq` the
/// last seq of the room as the answer shows it.
pub const READ: &str = "read";
/// `f` of several messages sent in one request, all or none: the beginning's `value` is the texts,
/// that of an answer the seqs, and `seq` the first of them.
pub const BATCH: &str = "batch";
/// `f` of a whole room as one node has it after everything: `value` as for a read, or, where it is
/// the same as that of a node before, `{"same_as": NODE, "hash": HEX}`.
pub const DRAIN: &str = "drain";

/// Who did it: a client, by number, or the one who breaks things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Process {
    Client(u64),
    Fault(Nemesis),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Nemesis {
    Nemesis,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Invoke,
    Ok,
    Fail,
    Info,
}

/// One line of the history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Counts from 0; the order of the file.
    pub index: u64,
    pub process: Process,
    #[serde(rename = "type")]
    pub kind: Kind,
    pub f: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rev: Option<u64>,
    /// Since the history began, by a clock that never steps.
    pub time_ns: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What an event says, before it has its place and time.
#[derive(Debug, Clone, Default)]
pub struct Entry {
    pub key: Option<String>,
    pub value: Option<Value>,
    pub seq: Option<u64>,
    pub rev: Option<u64>,
    pub node: Option<u64>,
    pub error: Option<String>,
}

impl Entry {
    /// Of an operation on `key` that `node` is asked for.
    pub fn of(key: &str, node: u64) -> Self {
        Self {
            key: Some(key.to_owned()),
            node: Some(node),
            ..Self::default()
        }
    }
}

/// Nanoseconds since the history began, by a clock that never steps: real time, or simulated time.
pub type Clock = Box<dyn Fn() -> u64 + Send + Sync>;

/// How many operations have ended, by how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ended {
    pub ok: u64,
    pub failed: u64,
    pub unknown: u64,
    /// Of the successful ones those that were to change something: all but reads of whatever kind.
    pub written: u64,
}

impl Ended {
    pub fn all(&self) -> u64 {
        self.ok + self.failed + self.unknown
    }
}

/// Whether operations of this name read back what there is after everything.
pub fn is_drain(f: &str) -> bool {
    f == DRAIN || f.ends_with(".drain")
}

/// Whether operations of this name are to change something in the cluster. Names of those that are not end in one
/// of the words that say so, or belong to a fence, which is a resource outside.
pub fn is_write(f: &str) -> bool {
    const LOOKS: [&str; 10] = [
        "read", "drain", "get", "list", "look", "stream", "deliver", "watch", "sync", "resume",
    ];
    !f.starts_with("fence.") && !LOOKS.iter().any(|word| f.ends_with(word))
}

/// A history that is being made, by many tasks at once.
pub struct History {
    clock: Clock,
    clients: AtomicU64,
    /// Held for one push or one buffered line, never across an await.
    written: Mutex<Written>,
}

impl std::fmt::Debug for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("History")
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Written {
    /// The index of the next event.
    next: u64,
    ended: Ended,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Memory(Vec<Event>),
    /// Memory holds one buffer, however long the history grows.
    File(BufWriter<File>, PathBuf),
}

impl Default for History {
    fn default() -> Self {
        Self::in_memory()
    }
}

impl History {
    pub fn in_memory() -> Self {
        Self::with(Place::Memory(Vec::new()))
    }

    /// Writes every event to the file, as a line of JSON, and keeps none in memory.
    pub fn to_file(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("failed to make {}", path.display()))?;
        Ok(Self::with(Place::File(BufWriter::new(file), path.to_owned())))
    }

    /// In memory, by another clock than this machine's.
    pub fn by_clock(clock: Clock) -> Self {
        Self {
            clock,
            ..Self::in_memory()
        }
    }

    fn with(place: Place) -> Self {
        let begun = Instant::now();
        let clock = move || u64::try_from(begun.elapsed().as_nanos()).expect("584 years have not passed");
        Self {
            clock: Box::new(clock),
            clients: AtomicU64::new(0),
            written: Mutex::new(Written {
                next: 0,
                ended: Ended::default(),
                place,
            }),
        }
    }

    /// A process that has not been used yet.
    pub fn new_client(&self) -> Process {
        Process::Client(self.clients.fetch_add(1, Ordering::Relaxed))
    }

    /// Nanoseconds since the history began, as an event recorded now would say.
    pub fn now_ns(&self) -> u64 {
        (self.clock)()
    }

    /// How many events there are so far.
    pub fn now_events(&self) -> u64 {
        self.written.lock().expect("no holder of this lock panics").next
    }

    /// How many operations have ended so far, drains not counted.
    pub fn ended(&self) -> Ended {
        self.written.lock().expect("no holder of this lock panics").ended
    }

    /// Appends an event; its time is now. Call it before the request is sent, and after the answer
    /// has arrived: the interval must not be shorter than the operation.
    pub fn record(&self, process: Process, kind: Kind, f: &str, entry: Entry) {
        let Entry {
            key,
            value,
            seq,
            rev,
            node,
            error,
        } = entry;
        let mut event = Event {
            index: 0,
            process,
            kind,
            f: f.to_owned(),
            key,
            value,
            seq,
            rev,
            time_ns: 0,
            node,
            error,
        };
        let mut written = self.written.lock().expect("no holder of this lock panics");
        // Taken inside the lock, so that times never step back along the file.
        event.time_ns = (self.clock)();
        event.index = written.next;
        written.next += 1;
        if !matches!(process, Process::Fault(_)) && !is_drain(f) {
            let ended = &mut written.ended;
            match kind {
                Kind::Invoke => {}
                Kind::Ok => {
                    ended.ok += 1;
                    ended.written += u64::from(is_write(f));
                }
                Kind::Fail => ended.failed += 1,
                Kind::Info => ended.unknown += 1,
            }
        }
        match &mut written.place {
            Place::Memory(events) => events.push(event),
            Place::File(file, _) => {
                serde_json::to_writer(&mut *file, &event).expect("an event has string keys only, the disk has space");
                file.write_all(b"\n").expect("the history's disk has space");
            }
        }
    }

    /// Notes a fault, for example `kill` of node 2.
    pub fn fault(&self, f: &str, node: Option<u64>) {
        let entry = Entry {
            node,
            ..Entry::default()
        };
        self.nemesis(f, entry);
    }

    /// Notes something that is done to the cluster.
    pub fn nemesis(&self, f: &str, entry: Entry) {
        self.record(Process::Fault(Nemesis::Nemesis), Kind::Info, f, entry);
    }

    /// All events so far, read back where they are in a file.
    pub fn events(&self) -> Vec<Event> {
        let mut written = self.written.lock().expect("no holder of this lock panics");
        let path = match &mut written.place {
            Place::Memory(events) => return events.clone(),
            Place::File(file, path) => {
                file.flush().expect("the history's disk has space");
                path.clone()
            }
        };
        // Lines that are appended meanwhile are not of "so far", and might be read in part.
        read_file(&path).expect("the file holds what was written to it")
    }
}

/// Reads a history file back, line by line.
pub fn read_file(path: &Path) -> Result<Vec<Event>> {
    let file = File::open(path).with_context(|| format!("failed to open {}", path.display()))?;
    let mut lines = BufReader::with_capacity(1 << 20, file);
    let mut events = Vec::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        if lines.read_until(b'\n', &mut line)? == 0 {
            return Ok(events);
        }
        let event = serde_json::from_slice(&line);
        let shown = || {
            let text: String = String::from_utf8_lossy(&line).chars().take(200).collect();
            format!("line {}: {}", events.len() + 1, text.trim_end())
        };
        events.push(event.with_context(shown)?);
    }
}

/// Reads the lines of a history back.
pub fn read(lines: &str) -> Result<Vec<Event>> {
    let parse = |(number, line)| serde_json::from_str(line).with_context(|| format!("line {}: {line}", number + 1));
    lines.lines().enumerate().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_is_what_the_tools_expect_and_reads_back() {
        let history = History::in_memory();
        let client = history.new_client();
        let key = Some("r".to_owned());
        history.record(
            client,
            Kind::Invoke,
            SEND,
            Entry {
                key,
                value: Some(json!("hi")),
                ..Entry::default()
            },
        );
        history.fault("kill", Some(2));
        let mut events = history.events();
        events[0].time_ns = 5;
        events[1].time_ns = 6;
        let lines: Vec<String> = events
            .iter()
            .map(|event| serde_json::to_string(event).expect("an event is JSON"))
            .collect();
        let expected = [
            r#"{"index":0,"process":0,"type":"invoke","f":"send","key":"r","value":"hi","time_ns":5}"#,
            r#"{"index":1,"process":"nemesis","type":"info","f":"kill","time_ns":6,"node":2}"#,
        ];
        assert_eq!(lines, expected);
        assert_eq!(read(&lines.join("\n")).expect("it was just written"), events);
    }

    #[test]
    fn what_changes_nothing_in_the_cluster_is_no_write() {
        for f in [READ, DRAIN, "register.read", "lock.look", "lock.drain", "fence.write"] {
            assert!(!is_write(f), "{f}");
        }
        for f in [SEND, BATCH, "lock.acquire", "lock.renew", "lock.release"] {
            assert!(is_write(f), "{f}");
        }
    }

    #[test]
    fn the_file_holds_what_memory_holds() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path = folder.path().join("history.jsonl");
        let history = History::to_file(&path).expect("the folder is writable");
        for _ in 0..3 {
            let client = history.new_client();
            history.record(client, Kind::Invoke, READ, Entry::default());
        }
        let events = history.events();
        let lines = std::fs::read_to_string(&path).expect("it was flushed");
        assert_eq!(read(&lines).expect("it was just written"), events);
        assert!(events.windows(2).all(|pair| pair[0].time_ns <= pair[1].time_ns));
    }
}
