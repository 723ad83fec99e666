//! The events of Porcupine (Go), one a line: a call and a return for each operation that may have happened.

use std::collections::HashMap;
use std::io::Write;

use anyhow::Result;
use serde::Serialize;
use serde_json::{Value, json};

use super::registers::{Values, is_register, name};
use crate::checker::operation::{Operation, Outcome, operations};
use crate::history::{DRAIN, Event, Process};

/// The fields of Porcupine's `Event`, and the key by which a model partitions.
#[derive(Debug, Serialize)]
struct Line<'a> {
    client_id: u64,
    kind: &'static str,
    /// The same in a call and its return.
    id: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    value: Value,
}

/// Writes all operations, or those of one key. What certainly did not happen is left out; what may have happened
/// returns at the very end, since it may take effect at any time.
pub fn write(events: &[Event], key: Option<&str>, out: &mut impl Write) -> Result<()> {
    let operations = operations(events)?;
    let values = Values::of(&operations);
    let is_wanted = |operation: &Operation| {
        operation.outcome() != Outcome::Refused
            && operation.begun.f != DRAIN
            && key.is_none_or(|key| operation.begun.key.as_deref() == Some(key))
    };
    let mut ids: HashMap<u64, (usize, &Operation)> = HashMap::new();
    let mut unknown = Vec::new();
    for (id, operation) in operations.iter().filter(|operation| is_wanted(operation)).enumerate() {
        ids.insert(operation.begun.index, (id, operation));
        match operation.end.filter(|_| operation.outcome() == Outcome::Done) {
            Some(end) => _ = ids.insert(end.index, (id, operation)),
            None => unknown.push((id, operation)),
        }
    }
    let mut write = |event: &Event, id: usize, kind: &'static str, value: Value| -> Result<()> {
        let Process::Client(client_id) = event.process else {
            return Ok(());
        };
        let key = event.key.as_deref();
        let line = Line {
            client_id,
            kind,
            id,
            key,
            value,
        };
        serde_json::to_writer(&mut *out, &line)?;
        Ok(out.write_all(b"\n")?)
    };
    for event in events {
        match ids.get(&event.index) {
            Some((id, operation)) if operation.begun.index == event.index => {
                write(event, *id, "call", call(&values, event)?)?;
            }
            Some((id, operation)) => write(event, *id, "return", answer(&values, operation, event)?)?,
            None => {}
        }
    }
    for (id, operation) in unknown {
        write(operation.begun, id, "return", json!({ "unknown": true }))?;
    }
    Ok(out.flush()?)
}

fn call(values: &Values, begun: &Event) -> Result<Value> {
    let value = match is_register(&begun.f) {
        true => values.asked(begun)?,
        false => begun.value.clone().unwrap_or_default(),
    };
    Ok(json!({ "op": name(&begun.f), "value": value }))
}

fn answer(values: &Values, operation: &Operation, end: &Event) -> Result<Value> {
    let value = match is_register(&end.f) {
        true => values.answered(operation, end)?,
        false => end.value.clone().unwrap_or_default(),
    };
    let mut answer = json!({ "value": value });
    for (field, number) in [("seq", end.seq), ("rev", end.rev)] {
        if let Some(number) = number {
            answer[field] = json!(number);
        }
    }
    Ok(answer)
}
