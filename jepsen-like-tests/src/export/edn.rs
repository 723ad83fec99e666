//! EDN, as Jepsen's checkers and Knossos read it: one map a line, in the order of the history.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write;

use anyhow::Result;
use serde_json::Value;

use super::registers::{Values, is_register, name};
use crate::checker::operation::{Operation, operations};
use crate::history::{Event, Kind, Process};

/// Writes all events, or those of one key and what was done to the cluster. Without a key each value is a pair of
/// the key and the value, as Jepsen's independent keys are.
pub fn write(events: &[Event], key: Option<&str>, out: &mut impl Write) -> Result<()> {
    let operations = operations(events)?;
    let values = Values::of(&operations);
    // The operation of each event that ends one.
    let ends: HashMap<u64, &Operation> = operations
        .iter()
        .filter_map(|operation| Some((operation.end?.index, operation)))
        .collect();
    let is_wanted = |event: &&Event| {
        matches!(event.process, Process::Fault(_)) || key.is_none_or(|key| event.key.as_deref() == Some(key))
    };
    for (index, event) in events.iter().filter(is_wanted).enumerate() {
        let value = match (event.process, is_register(&event.f)) {
            (Process::Client(_), true) => match ends.get(&event.index) {
                Some(operation) => values.answered(operation, event)?,
                None => values.asked(event)?,
            },
            _ => event.value.clone().unwrap_or_default(),
        };
        writeln!(out, "{}", line(index, event, &value, key.is_some()))?;
    }
    Ok(out.flush()?)
}

fn line(index: usize, event: &Event, value: &Value, is_bare: bool) -> String {
    let process = match event.process {
        Process::Client(number) => number.to_string(),
        Process::Fault(_) => ":nemesis".to_owned(),
    };
    let kind = match event.kind {
        Kind::Invoke => "invoke",
        Kind::Ok => "ok",
        Kind::Fail => "fail",
        Kind::Info => "info",
    };
    let f = match is_register(&event.f) {
        true => name(&event.f),
        false => &event.f,
    };
    let value = match (&event.key, is_bare) {
        (Some(key), false) => format!("[{} {}]", text(key), edn(value)),
        _ => edn(value),
    };
    let mut line = format!("{{:index {index}, :process {process}, :type :{kind}, :f :{f}, :value {value}");
    let _ = write!(line, ", :time {}", event.time_ns);
    for (field, number) in [("seq", event.seq), ("rev", event.rev), ("node", event.node)] {
        if let Some(number) = number {
            let _ = write!(line, ", :{field} {number}");
        }
    }
    if let Some(error) = &event.error {
        let _ = write!(line, ", :error {}", text(error));
    }
    // The number in the history that this was made of.
    let _ = write!(line, ", :event {}}}", event.index);
    line
}

fn edn(value: &Value) -> String {
    match value {
        Value::Null => "nil".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(string) => text(string),
        Value::Array(values) => {
            let values: Vec<String> = values.iter().map(edn).collect();
            format!("[{}]", values.join(" "))
        }
        Value::Object(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|(name, value)| format!("{} {}", text(name), edn(value)))
                .collect();
            format!("{{{}}}", fields.join(", "))
        }
    }
}

/// A string of EDN, which has fewer escapes than JSON: other characters stand for themselves.
fn text(string: &str) -> String {
    let mut quoted = String::from("\"");
    for c in string.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
