//! Every answer that a test gets is held against `/openapi.json`: its status must be documented for
//! the route, its media type and body must be those of the document. So each test of this crate is
//! also one of the document.

use std::collections::HashMap;
use std::sync::OnceLock;

use boon::{Compiler, Draft, SchemaIndex, Schemas};
use http::HeaderMap;
use http_body_util::BodyExt;
use quorate_api::{ApiConfig, router};
use serde_json::Value;
use tower::ServiceExt;

use crate::caller::request;
use crate::memory::MemoryReplica;

/// Where the document stands for references in it.
const URL: &str = "http://quorate/openapi.json";

static CONTRACT: OnceLock<Contract> = OnceLock::new();

struct Contract {
    document: Value,
    schemas: Schemas,
    /// Schemas of answers, by where they stand in the document.
    indexes: HashMap<String, SchemaIndex>,
}

/// The document, as a node serves it.
pub(crate) async fn document() -> &'static Value {
    &contract().await.document
}

async fn contract() -> &'static Contract {
    if let Some(contract) = CONTRACT.get() {
        return contract;
    }
    // Not through `Node`, whose answers come here to be checked.
    let router = router(MemoryReplica::new(), ApiConfig::default());
    let asked = request("GET", "/openapi.json", &[], axum::body::Body::empty());
    let body = router.oneshot(asked).await.unwrap().into_body();
    let document: Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
    let mut compiler = Compiler::new();
    compiler.set_default_draft(Draft::V2020_12);
    compiler.enable_format_assertions();
    compiler.add_resource(URL, document.clone()).unwrap();
    let mut schemas = Schemas::new();
    let indexes = json_answers(&document).into_iter().map(|pointer| {
        let index = compiler.compile(&format!("{URL}#{pointer}"), &mut schemas);
        (pointer, index.unwrap())
    });
    let indexes = indexes.collect();
    CONTRACT.get_or_init(|| Contract {
        document,
        schemas,
        indexes,
    })
}

/// Where the schemas of JSON answers stand.
fn json_answers(document: &Value) -> Vec<String> {
    let mut places: Vec<(String, &Value)> = Vec::new();
    for (name, response) in document["components"]["responses"].as_object().unwrap() {
        places.push((format!("/components/responses/{}", escape(name)), response));
    }
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            for (status, response) in operation["responses"].as_object().unwrap() {
                places.push((format!("/paths/{}/{method}/responses/{status}", escape(path)), response));
            }
        }
    }
    let media_types = places.iter().flat_map(|(place, response)| {
        let content = response["content"].as_object().into_iter().flatten();
        content.map(move |(media_type, _)| (place, media_type))
    });
    media_types
        .filter(|(_, media_type)| media_type.ends_with("json"))
        .map(|(place, media_type)| format!("{place}/content/{}/schema", escape(media_type)))
        .chain([frames("client"), frames("server")])
        .collect()
}

/// The route that the path leads to: a segment of a parameter is any, and a fixed one goes first.
pub(crate) fn route_of<'a>(document: &'a Value, path: &str) -> Option<(&'a str, &'a Value)> {
    let path = path.split('?').next().unwrap();
    let paths = document["paths"].as_object().unwrap();
    let fits = |pattern: &str| {
        let (pattern, path) = (pattern.split('/'), path.split('/'));
        pattern.clone().count() == path.clone().count()
            && pattern
                .zip(path)
                .all(|(pattern, segment)| pattern == segment || pattern.starts_with('{'))
    };
    let mut fitting: Vec<_> = paths.iter().filter(|(pattern, _)| fits(pattern)).collect();
    fitting.sort_by_key(|(pattern, _)| pattern.matches('{').count());
    fitting.first().map(|(pattern, item)| (pattern.as_str(), *item))
}

/// Panics where the answer is none that the document allows.
pub(crate) async fn check(method: &str, path: &str, status: u16, headers: &HeaderMap, body: &[u8]) {
    let contract = contract().await;
    let Some((route, item)) = route_of(&contract.document, path) else {
        assert_eq!(status, 404, "{method} {path} is no route of the document");
        return;
    };
    let method = if method == "HEAD" { "GET" } else { method };
    let Some(operation) = item.get(method.to_ascii_lowercase()) else {
        assert_eq!(status, 405, "{method} {path} is no operation of the document");
        return;
    };
    let what = format!("{method} {route} answered {status}");
    let mut pointer = format!(
        "/paths/{}/{}/responses/{status}",
        escape(route),
        method.to_ascii_lowercase()
    );
    let mut response = &operation["responses"][status.to_string()];
    if let Some(shared) = response["$ref"].as_str() {
        pointer = shared.strip_prefix('#').unwrap().to_owned();
        response = contract.document.pointer(&pointer).unwrap();
    }
    assert!(response.is_object(), "{what}, which the document does not know");
    for name in response["headers"]
        .as_object()
        .into_iter()
        .flat_map(|headers| headers.keys())
    {
        // The level is not known where it was not readable.
        let sometimes = [
            "ETag",
            "Idempotency-Replayed",
            "Link",
            "Location",
            "RateLimit",
            "RateLimit-Policy",
            "Retry-After",
            "X-Quorate-Level",
        ];
        assert!(
            sometimes.contains(&name.as_str()) || headers.contains_key(name.as_str()),
            "{what} without {name}"
        );
    }
    let Some(content) = response["content"].as_object() else {
        assert!(body.is_empty(), "{what} with a body, which the document does not know");
        return;
    };
    let given = headers.get("content-type").map(|value| value.to_str().unwrap());
    let Some(media_type) = given.filter(|given| content.contains_key(*given)) else {
        let known: Vec<_> = content.keys().collect();
        // Parameters of the type are no part of what the document promises of streams and texts.
        let essence = given.and_then(|given| given.split(';').next());
        assert!(
            known.iter().any(|known| known.split(';').next() == essence),
            "{what} as {given:?}, not as {known:?}"
        );
        return;
    };
    if !media_type.ends_with("json") || body.is_empty() {
        return;
    }
    let pointer = format!("{pointer}/content/{}/schema", escape(media_type));
    let value: Value = serde_json::from_slice(body).unwrap();
    contract.validate(&pointer, &value, &what);
}

/// Where the schema of one side's frames on a socket stands.
fn frames(side: &str) -> String {
    format!("/paths/~1v1~1ws/get/responses/101/x-quorate-frames/{side}")
}

/// The same of a frame that a node has said.
pub(crate) async fn check_frame(frame: &Value) {
    contract().await.validate(&frames("server"), frame, "a frame");
}

/// Whether the document allows a client to say this.
pub(crate) async fn may_be_said(frame: &Value) -> bool {
    let contract = contract().await;
    let index = contract.indexes[&frames("client")];
    contract.schemas.validate(frame, index).is_ok()
}

impl Contract {
    fn validate(&self, pointer: &str, value: &Value, what: &str) {
        if let Err(error) = self.schemas.validate(value, self.indexes[pointer]) {
            panic!("{what}: {error:#}\n{value}");
        }
    }
}

/// A key in a JSON pointer that is a fragment of a URL.
fn escape(key: &str) -> String {
    let key = key.replace('~', "~0").replace('/', "~1");
    key.replace('{', "%7B").replace('}', "%7D")
}
