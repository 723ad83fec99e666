//! Writes the operations down as OpenAPI 3.1. What several of them say in the same words stands
//! once under `components`.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::header;
use serde_json::{Map, Value, json};

use super::parameters;
use super::schemas::Schemas;
use crate::front::{BodyRule, Rule};
use crate::operation::{Answer, Content, Operation};
use crate::problem::Kind;

const ABOUT: &str = "A replicated chat store. Every node serves every request. Fields that have no value are absent, \
                     never null; requests with unknown fields are refused, answers may gain some. A path that is not \
                     listed is 404, a method that is not is 405 with `Allow`. docs/API.md says it in prose.";

pub(super) fn of(operations: &[Arc<Operation>]) -> Value {
    let mut writer = Writer {
        schemas: Schemas::new(),
        parameters: BTreeMap::new(),
        headers: BTreeMap::new(),
        responses: BTreeMap::new(),
    };
    let mut paths: Map<String, Value> = Map::new();
    let mut tags: Vec<&str> = Vec::new();
    for operation in operations {
        let method = operation.method.as_str().to_ascii_lowercase();
        let written = writer.operation(operation);
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[method] = written;
        if !tags.contains(&operation.tag) {
            tags.push(operation.tag);
        }
    }
    let tags: Vec<Value> = tags.iter().map(|name| json!({"name": name})).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Quorate",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "A replicated, highly available chat store",
            "description": ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "The node that served this document."}],
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": writer.schemas.into_components(),
            "parameters": writer.parameters,
            "headers": writer.headers,
            "responses": writer.responses,
            "securitySchemes": {
                "session": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The token of a session. Without one the header X-Quorate-User says who asks.",
                },
            },
        },
    })
}

struct Writer {
    schemas: Schemas,
    parameters: BTreeMap<String, Value>,
    headers: BTreeMap<String, Value>,
    responses: BTreeMap<String, Value>,
}

impl Writer {
    fn operation(&mut self, operation: &Operation) -> Value {
        let mut written = json!({
            "operationId": operation.id,
            "tags": [operation.tag],
            "summary": operation.summary,
            "parameters": self.parameters(operation),
            "responses": self.responses(operation),
        });
        if !operation.about.is_empty() {
            written["description"] = operation.about.into();
        }
        if operation.rule != Rule::Probe {
            // Either is enough: the token, or in open mode nothing.
            written["security"] = json!([{"session": []}, {}]);
        }
        if let (Rule::Write(rule), Some(schema)) = (operation.rule, operation.body) {
            let content = json!({"schema": self.schemas.of_request(schema)});
            let mut body = json!({
                "required": rule != BodyRule::OptionalJson,
                "content": {"application/json": content},
            });
            if rule == BodyRule::MergePatch {
                body["content"]["application/merge-patch+json"] = content;
                body["description"] =
                    "RFC 7396: an absent field stays, null removes, attributes are merged in depth.".into();
            }
            written["requestBody"] = body;
        }
        written
    }

    fn parameters(&mut self, operation: &Operation) -> Vec<Value> {
        let in_path = operation
            .path
            .split('/')
            .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
        let mut parameters: Vec<Value> = in_path
            .map(|name| parameters::in_path(name, &mut self.schemas))
            .collect();
        for name in &operation.query {
            parameters.push(parameters::in_query(name));
        }
        for name in &operation.headers {
            parameters.push(parameters::in_header(name, operation));
        }
        parameters
            .into_iter()
            .map(|parameter| share(&mut self.parameters, "parameters", &key_of(&parameter), parameter))
            .collect()
    }

    fn responses(&mut self, operation: &Operation) -> Map<String, Value> {
        let mut responses = Map::new();
        for answer in &operation.answers {
            responses.insert(answer.status.to_string(), self.answer(answer));
        }
        if operation.query.contains(&"redirect") {
            let mut headers = operation.standard_headers();
            headers.push(header::LOCATION);
            let redirect = Answer {
                status: 307,
                content: Content::Nothing,
                headers,
            };
            responses.insert("307".to_owned(), self.answer(&redirect));
        }
        let mut by_status: BTreeMap<u16, Vec<Kind>> = BTreeMap::new();
        for kind in &operation.errors {
            by_status.entry(kind.status().as_u16()).or_default().push(*kind);
        }
        for (status, kinds) in by_status {
            responses.insert(status.to_string(), self.error(operation, status, &kinds));
        }
        responses
    }

    fn answer(&mut self, answer: &Answer) -> Value {
        let about = match answer.status {
            201 => "Created.",
            202 => "Begun.",
            101 => "The connection is a WebSocket.",
            204 => "Done; there is nothing to say.",
            304 => "Unchanged.",
            307 => "Ask the leader, at `Location`; only with `redirect=true`.",
            _ => "Done.",
        };
        let mut written = json!({"description": about, "headers": self.headers(&answer.headers)});
        match answer.content {
            Content::Nothing => {}
            Content::Json(schema) => {
                written["content"] = json!({"application/json": {"schema": self.schemas.of_answer(schema)}});
            }
            Content::Text(media_type) => {
                written["content"] = json!({media_type: {"schema": {"type": "string"}}});
            }
            // OpenAPI has no words for what follows an upgrade.
            Content::Socket { requests, answers } => {
                written["x-quorate-frames"] = json!({
                    "client": self.schemas.of_answer(requests),
                    "server": self.schemas.of_answer(answers),
                });
            }
            Content::Events => {
                written["content"] = json!({"text/event-stream": {"schema": {
                    "type": "string",
                    "description": "Frames of `event:`, `id:` (a position) and `data:` (one line of JSON).",
                }}});
            }
        }
        written
    }

    /// The errors of one status, by their codes.
    fn error(&mut self, operation: &Operation, status: u16, kinds: &[Kind]) -> Value {
        let mut codes: Vec<&str> = kinds.iter().map(|kind| kind.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        let about: Vec<String> = kinds
            .iter()
            .map(|kind| format!("{} (`{}`)", kind.title(), kind.code()))
            .collect();
        let mut headers = operation.standard_headers();
        match status {
            401 => headers.push(header::WWW_AUTHENTICATE),
            429 | 503 => headers.push(header::RETRY_AFTER),
            _ => {}
        }
        let written = json!({
            "description": about.join("; "),
            "headers": self.headers(&headers),
            "content": {"application/problem+json": {"schema": {
                "allOf": [self.schemas.problem()],
                "properties": {"code": {"enum": codes}, "status": {"const": status}},
            }}},
        });
        let class = match operation.rule {
            Rule::Probe => "probe",
            Rule::Read => "read",
            Rule::Write(_) => "write",
        };
        let key = format!("{class}-{status}-{}", codes.join("-"));
        share(&mut self.responses, "responses", &key, written)
    }

    fn headers(&mut self, names: &[header::HeaderName]) -> Map<String, Value> {
        let shared = names.iter().map(|name| {
            let (written, header) = parameters::of_answer(name);
            (written.to_owned(), share(&mut self.headers, "headers", written, header))
        });
        shared.collect()
    }
}

/// Where in `components/parameters` a parameter stands: the same header may mean something else to
/// reads and to writes.
fn key_of(parameter: &Value) -> String {
    let text = |key| parameter[key].as_str().expect("a parameter has a name and a place");
    let only = if parameter["schema"].get("enum").is_some() && text("name") == "If-None-Match" {
        "-of-a-write"
    } else {
        ""
    };
    format!("{}-{}{only}", text("in"), text("name"))
}

/// Puts the value under `components`, and gives a reference to it.
///
/// # Panics
/// When another value stands there under the same key.
fn share(components: &mut BTreeMap<String, Value>, kind: &str, key: &str, value: Value) -> Value {
    let shared = components.entry(key.to_owned()).or_insert_with(|| value.clone());
    assert_eq!(*shared, value, "two {kind} are called {key}");
    json!({"$ref": format!("#/components/{kind}/{key}")})
}
