//! An example of a schema: its own, or one put together from those of its parts.

use serde_json::{Value, json};

/// References inside references: the document's are three deep, and one leads to itself.
const DEPTH_MAX: usize = 6;

pub(super) fn of(schema: &Value, document: &Value) -> Value {
    at_depth(schema, document, DEPTH_MAX)
}

fn at_depth(schema: &Value, document: &Value, depth: usize) -> Value {
    let schema = super::resolved(schema, document);
    if let Some(example) = schema["examples"].get(0) {
        return example.clone();
    }
    if let Some(word) = schema["enum"].get(0) {
        return word.clone();
    }
    if depth == 0 {
        return Value::Null;
    }
    if let Some(choice) = schema["anyOf"].get(0) {
        return at_depth(choice, document, depth - 1);
    }
    match schema["type"].as_str() {
        Some("object") => {
            let fields = schema["properties"].as_object().into_iter().flatten();
            fields
                .map(|(name, field)| (name.clone(), at_depth(field, document, depth - 1)))
                .collect::<serde_json::Map<_, _>>()
                .into()
        }
        Some("array") => json!([at_depth(&schema["items"], document, depth - 1)]),
        Some("integer" | "number") => schema
            .get("minimum")
            .filter(|least| **least != 0)
            .cloned()
            .unwrap_or(json!(1)),
        Some("boolean") => json!(false),
        Some("string") => json!("…"),
        _ => Value::Null,
    }
}
