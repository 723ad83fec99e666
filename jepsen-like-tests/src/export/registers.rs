//! Registers as other checkers know them: theirs compare and set values, ours revs.

use std::collections::HashMap;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::checker::operation::Operation;
use crate::history::{Event, Kind};

const PREFIX: &str = "register.";
const CAS: &str = "register.cas";

/// Whether the operation is one of a register.
pub(super) fn is_register(f: &str) -> bool {
    f.starts_with(PREFIX)
}

/// The operation's name there: `read`, `write` or `cas`.
pub(super) fn name(f: &str) -> &str {
    f.strip_prefix(PREFIX).unwrap_or(f)
}

/// Which value each register had at each rev. Every value is written once, so that the rev stands for the value.
#[derive(Debug, Default)]
pub(super) struct Values<'a> {
    of: HashMap<(&'a str, u64), &'a Value>,
}

impl<'a> Values<'a> {
    pub(super) fn of(operations: &[Operation<'a>]) -> Self {
        let mut values = Self::default();
        for operation in operations {
            let Some(end) = operation.end.filter(|end| end.kind == Kind::Ok && is_register(&end.f)) else {
                continue;
            };
            let value = end.value.as_ref().or_else(|| written(operation.begun));
            if let (Some(key), Some(rev), Some(value)) = (end.key.as_deref(), end.rev, value) {
                values.of.insert((key, rev), value);
            }
        }
        values
    }

    /// What is asked for: nothing, the new value, or the old and the new one.
    pub(super) fn asked(&self, begun: &Event) -> Result<Value> {
        if begun.f != CAS {
            return Ok(begun.value.clone().unwrap_or_default());
        }
        let if_rev = begun.value.as_ref().and_then(|value| value.get("if_rev")?.as_u64());
        let if_rev = if_rev.with_context(|| format!("event {}: a compare-and-set without if_rev", begun.index))?;
        let key = begun.key.as_deref().unwrap_or_default();
        let old = self.of.get(&(key, if_rev));
        let old = old.with_context(|| format!("event {}: nobody saw what {key} was at rev {if_rev}", begun.index))?;
        let new = written(begun).with_context(|| format!("event {}: nothing to set", begun.index))?;
        Ok(json!([old, new]))
    }

    /// What the answer shows: what was read, or what was asked for.
    pub(super) fn answered(&self, operation: &Operation, end: &Event) -> Result<Value> {
        match &end.value {
            Some(value) if end.kind == Kind::Ok && name(&end.f) == "read" => Ok(value.clone()),
            _ => self.asked(operation.begun),
        }
    }
}

/// What a write or a compare-and-set sets.
fn written(begun: &Event) -> Option<&Value> {
    match begun.value.as_ref()? {
        Value::Object(fields) => fields.get("value"),
        value => Some(value),
    }
}
