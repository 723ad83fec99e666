//! The interface's description of itself: an OpenAPI 3.1 document made from what the routes promise
//! (`operation`) and from the schemas of the bodies, and the same as a page for people.

mod document;
mod example;
mod page;
mod parameters;
mod schemas;

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde_json::Value;

use crate::operation::Operation;

pub(crate) use page::POLICY as DOCS_POLICY;

/// Both forms, made when they are first asked for.
#[derive(Default)]
pub(crate) struct Description {
    operations: OnceLock<Vec<Arc<Operation>>>,
    document: OnceLock<Value>,
    json: OnceLock<Bytes>,
    html: OnceLock<Bytes>,
}

impl Description {
    /// Once, when the table of the routes is whole. The routes that serve the description are among
    /// them, so they cannot be given it.
    pub(crate) fn set(&self, operations: Vec<Arc<Operation>>) {
        assert!(self.operations.set(operations).is_ok(), "the table is finished once");
    }

    fn document(&self) -> &Value {
        self.document.get_or_init(|| {
            document::of(
                self.operations
                    .get()
                    .expect("the table is finished before a request comes"),
            )
        })
    }

    pub(crate) fn json(&self) -> Bytes {
        let json = self.json.get_or_init(|| {
            let mut text = serde_json::to_vec_pretty(self.document()).expect("a document is plain JSON");
            text.push(b'\n');
            text.into()
        });
        json.clone()
    }

    pub(crate) fn html(&self) -> Bytes {
        self.html.get_or_init(|| page::of(self.document()).into()).clone()
    }
}

/// What a reference leads to; what is none is itself.
fn resolved<'a>(value: &'a Value, document: &'a Value) -> &'a Value {
    let pointer = value["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
    pointer.and_then(|pointer| document.pointer(pointer)).unwrap_or(value)
}
