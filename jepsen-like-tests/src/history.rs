//! What was asked and what was answered, in the order in which it happened, as JSON lines.
//!
//! Each operation is one `invoke` and at most one end: `ok`; `fail`, only where it certainly did
//! not happen; `info`, where it may have happened. A process does one thing at a time, and one
//! whose operation ended in `info` is retired, since that operation may still take effect. Faults
//! stand in the same file, as `info` of the process `nemesis`. The shape converts to the EDN that
//! Jepsen's checkers read and to the events of Porcupine.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
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
/// `f` of a whole room as one node has it after everything: `value` as for a read.
pub const DRAIN: &str = "drain";

/// Who did it: a client, by number, or the one who breaks things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Process {
    Client(u64),
    Fault(Nemesis),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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

/// A history that is being made, by many tasks at once.
#[derive(Debug)]
pub struct History {
    begun: Instant,
    clients: AtomicU64,
    /// Held for one push and one buffered line, never across an await.
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    events: Vec<Event>,
    file: Option<BufWriter<File>>,
}

impl Default for History {
    fn default() -> Self {
        Self::in_memory()
    }
}

impl History {
    pub fn in_memory() -> Self {
        Self::with(None)
    }

    /// Also writes every event to the file, as a line of JSON.
    pub fn to_file(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("failed to make {}", path.display()))?;
        Ok(Self::with(Some(BufWriter::new(file))))
    }

    fn with(file: Option<BufWriter<File>>) -> Self {
        let written = Mutex::new(Written {
            events: Vec::new(),
            file,
        });
        Self {
            begun: Instant::now(),
            clients: AtomicU64::new(0),
            written,
        }
    }

    /// A process that has not been used yet.
    pub fn new_client(&self) -> Process {
        Process::Client(self.clients.fetch_add(1, Ordering::Relaxed))
    }

    /// Appends an event; its time is now. Call it before the request is sent, and after the answer
    /// has arrived: the interval must not be shorter than the operation.
    pub fn record(&self, process: Process, kind: Kind, f: &str, entry: Entry) {
        let mut written = self.written.lock().expect("no holder of this lock panics");
        // Taken inside the lock, so that times never step back along the file.
        let time_ns = u64::try_from(self.begun.elapsed().as_nanos()).expect("584 years have not passed");
        let Entry {
            key,
            value,
            seq,
            rev,
            node,
            error,
        } = entry;
        let index = written.events.len() as u64;
        let event = Event {
            index,
            process,
            kind,
            f: f.to_owned(),
            key,
            value,
            seq,
            rev,
            time_ns,
            node,
            error,
        };
        if let Some(file) = &mut written.file {
            let line = serde_json::to_string(&event).expect("an event has string keys only");
            writeln!(file, "{line}").expect("the history's disk has space");
        }
        written.events.push(event);
    }

    /// Notes a fault, for example `kill` of node 2.
    pub fn fault(&self, f: &str, node: Option<u64>) {
        self.record(
            Process::Fault(Nemesis::Nemesis),
            Kind::Info,
            f,
            Entry {
                node,
                ..Entry::default()
            },
        );
    }

    /// All events so far; the file, if any, holds them too.
    pub fn events(&self) -> Vec<Event> {
        let mut written = self.written.lock().expect("no holder of this lock panics");
        if let Some(file) = &mut written.file {
            file.flush().expect("the history's disk has space");
        }
        written.events.clone()
    }
}

/// Reads a history file back.
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
