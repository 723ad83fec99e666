//! The interface's description of itself agrees with what is there: the routes, the answers, the
//! errors, and docs/API.md. That every answer of every test is as the document says is `contract`'s.

use std::collections::BTreeSet;

use boon::{Compiler, Draft, Schemas};
use quorate_api::replica::Verification;
use serde_json::{Value, json};

use crate::caller::Node;
use crate::contract;

const API_MD: &str = include_str!("../../../docs/API.md");

/// Method, path and what the document says of them.
pub(crate) fn operations(document: &Value) -> Vec<(String, &str, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    let all = paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().iter();
        methods.map(move |(method, operation)| (method.to_ascii_uppercase(), path.as_str(), operation))
    });
    all.collect()
}

/// A path that leads to the route, whether what it names is there or not.
fn some_path(route: &str) -> String {
    route.replace("{seq}", "1").replace("{id}", "2").replace(['{', '}'], "")
}

#[tokio::test]
async fn it_is_an_openapi_document() {
    let document = contract::document().await;
    let schema: Value = serde_json::from_str(include_str!("openapi-3.1/schema.json")).unwrap();
    let mut compiler = Compiler::new();
    compiler.set_default_draft(Draft::V2020_12);
    compiler.add_resource("http://quorate/schema.json", schema).unwrap();
    let mut schemas = Schemas::new();
    let index = compiler.compile("http://quorate/schema.json", &mut schemas).unwrap();
    if let Err(error) = schemas.validate(document, index) {
        panic!("{error:#}");
    }
    // That schema leaves the schemas inside a document alone; to compile one is to check it.
    compiler
        .add_resource("http://quorate/openapi.json", document.clone())
        .unwrap();
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        compiler
            .compile(
                &format!("http://quorate/openapi.json#/components/schemas/{name}"),
                &mut schemas,
            )
            .unwrap();
    }
}

#[tokio::test]
async fn references_lead_somewhere_and_components_are_used() {
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(reference)) = fields.get("$ref") {
                    found.insert(reference.clone());
                }
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(values) => values.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let document = contract::document().await;
    let mut found = BTreeSet::new();
    references(document, &mut found);
    for reference in &found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    for (kind, components) in document["components"].as_object().unwrap() {
        for name in components
            .as_object()
            .unwrap()
            .keys()
            .filter(|_| kind != "securitySchemes")
        {
            let reference = format!("#/components/{kind}/{name}");
            assert!(found.contains(&reference), "nothing refers to {reference}");
        }
    }
}

#[tokio::test]
async fn every_operation_says_what_it_is() {
    let document = contract::document().await;
    let mut ids = BTreeSet::new();
    for (method, path, operation) in operations(document) {
        let what = format!("{method} {path}");
        let id = operation["operationId"].as_str().unwrap();
        assert!(!id.is_empty() && ids.insert(id), "{what}: {id:?} is nothing, or taken");
        assert!(!operation["summary"].as_str().unwrap().is_empty(), "{what}");
        let tag = &operation["tags"][0];
        let tags = document["tags"].as_array().unwrap();
        assert!(tags.iter().any(|one| one["name"] == *tag), "{what}: {tag}");
        let responses = operation["responses"].as_object().unwrap();
        assert!(
            responses
                .keys()
                .any(|status| status.starts_with('2') || status == "101"),
            "{what}"
        );
        assert!(responses.contains_key("400") && responses.contains_key("500"), "{what}");
        // Every segment in braces is a parameter.
        let parameters = operation["parameters"].as_array().unwrap();
        let in_path = parameters.iter().filter(|one| {
            one["$ref"]
                .as_str()
                .unwrap()
                .starts_with("#/components/parameters/path-")
        });
        assert_eq!(in_path.count(), path.matches('{').count(), "{what}");
    }
}

/// The table has one door (`Table::add`), and what goes through it is described; here is asked which
/// methods really are there.
#[tokio::test]
async fn the_routes_are_those_of_the_document() {
    let node = Node::furnished().await;
    let document = contract::document().await;
    for (path, item) in document["paths"].as_object().unwrap() {
        let reply = node.ask("FROB", &some_path(path), &[]).await;
        let allowed: BTreeSet<String> = reply.header("allow").split(',').map(str::to_owned).collect();
        let mut described: BTreeSet<String> = item.as_object().unwrap().keys().map(|key| key.to_uppercase()).collect();
        if described.contains("GET") {
            described.insert("HEAD".to_owned());
        }
        assert_eq!(allowed, described, "{path}");
        reply.problem(405, "method_not_allowed");
    }
    let doors = include_str!("../../src/routes/mod.rs").matches(".route(").count();
    assert_eq!(doors, 1, "a route that goes past Table::add is not described");
}

/// `GET /v1/rooms/{room}` and the like, as they begin a line of a block of code.
fn routes_of_api_md() -> BTreeSet<(String, String)> {
    let lines = API_MD.lines().filter_map(|line| {
        let (methods, rest) = line.split_once(' ')?;
        let path = rest.trim_start().split([' ', '[', '?']).next()?;
        path.starts_with('/').then_some((methods, path))
    });
    let methods = ["GET", "POST", "PUT", "PATCH", "DELETE"];
    lines
        .flat_map(|(several, path)| several.split('|').map(move |one| (one.to_owned(), path.to_owned())))
        .filter(|(method, _)| methods.contains(&method.as_str()))
        .collect()
}

#[tokio::test]
async fn api_md_has_the_same_routes() {
    let document = contract::document().await;
    let written = routes_of_api_md();
    let mut described = BTreeSet::new();
    for (method, path, _) in operations(document) {
        // Said in words: the same routes are there under /api.
        described.insert((method, path.replacen("/api/", "/v1/", 1)));
    }
    let missing: Vec<_> = described.difference(&written).collect();
    assert!(missing.is_empty(), "not in docs/API.md: {missing:?}");
    let invented: Vec<_> = written.difference(&described).collect();
    assert!(invented.is_empty(), "in docs/API.md, and no routes: {invented:?}");
    assert!(API_MD.contains("`/api/users`"));
}

#[tokio::test]
async fn the_codes_of_errors_are_the_same_everywhere() {
    // Rows such as `(S::NOT_FOUND, "not_found", "Not found", false)`.
    let source = include_str!("../../src/problem.rs");
    let in_code: BTreeSet<&str> = source
        .split("S::")
        .skip(1)
        .filter_map(|row| {
            row.split('"')
                .nth(1)
                .filter(|_| row.split('"').next().unwrap().trim_end().ends_with(','))
        })
        .collect();
    assert!(in_code.len() > 20, "{in_code:?}");
    let document = contract::document().await;
    let described = document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"].as_array();
    let described: BTreeSet<&str> = described.unwrap().iter().map(|code| code.as_str().unwrap()).collect();
    assert_eq!(described, in_code);
    let tables: String = API_MD.lines().filter(|line| line.starts_with('|')).collect();
    for code in in_code {
        assert!(
            tables.contains(&format!("`{code}`")),
            "{code} is in no table of docs/API.md"
        );
    }
}

/// Stands for the token of the lock that was taken before.
const TOKEN: &str = "TOKEN";

/// A request of each operation that it answers with what it is for, in an order in which it can.
fn successes() -> Vec<(&'static str, &'static str, Option<Value>, u16)> {
    vec![
        (
            "POST",
            "/v1/users",
            Some(json!({"user": "eve", "email": "e@x", "attributes": {"a": [1.5, null]}})),
            201,
        ),
        ("GET", "/v1/users?limit=1", None, 200),
        ("GET", "/v1/users/eve", None, 200),
        (
            "PATCH",
            "/v1/users/eve",
            Some(json!({"display_name": "Eve", "email": null})),
            200,
        ),
        ("DELETE", "/v1/users/eve", None, 204),
        (
            "POST",
            "/v1/rooms",
            Some(json!({"room": "new", "kind": "public", "title": "New"})),
            201,
        ),
        ("GET", "/v1/rooms?limit=1", None, 200),
        ("GET", "/v1/rooms/hall", None, 200),
        (
            "PATCH",
            "/v1/rooms/hall",
            Some(json!({"title": "T", "attributes": {"a": 1}})),
            200,
        ),
        ("DELETE", "/v1/rooms/new", None, 204),
        ("PUT", "/v1/rooms/hall/members/ann", Some(json!({"role": "owner"})), 201),
        ("PUT", "/v1/rooms/hall/members/ann", None, 200),
        ("GET", "/v1/rooms/hall/members", None, 200),
        ("PUT", "/v1/rooms/hall/members/bob", None, 201),
        ("DELETE", "/v1/rooms/hall/members/bob", None, 204),
        (
            "POST",
            "/v1/rooms/hall/messages",
            Some(json!({"text": "x", "client_id": "c", "reply_to": 1})),
            201,
        ),
        (
            "POST",
            "/v1/rooms/hall/messages/batch",
            Some(json!({"messages": [{"text": "y", "sender": "bob", "sent_at": "2004-11-15T12:00:00Z"}]})),
            201,
        ),
        ("GET", "/v1/rooms/hall/messages?after=1", None, 200),
        ("GET", "/v1/rooms/hall/messages/3", None, 200),
        ("PATCH", "/v1/rooms/hall/messages/1", Some(json!({"text": "uno"})), 200),
        ("GET", "/v1/rooms/hall/messages/1/revisions", None, 200),
        ("DELETE", "/v1/rooms/hall/messages/1", None, 204),
        ("GET", "/v1/rooms/hall/messages/1", None, 200),
        (
            "PUT",
            "/v1/locks/deploy",
            Some(json!({"owner": "eve", "ttl_ms": 1000, "wait_ms": 0, "mode": "exclusive", "data": [1, "x"]})),
            200,
        ),
        (
            "PUT",
            "/v1/locks/deploy",
            Some(json!({"owner": "bob", "ttl_ms": 1000})),
            409,
        ),
        ("GET", "/v1/locks/deploy", None, 200),
        ("GET", "/v1/locks?limit=1", None, 200),
        ("POST", "/v1/locks/deploy/renew", Some(json!({"token": TOKEN})), 200),
        ("DELETE", "/v1/locks/deploy?token=TOKEN", None, 204),
        ("GET", "/v1/cluster", None, 200),
        (
            "POST",
            "/v1/cluster/nodes",
            Some(json!({"id": 4, "client_url": "http://127.0.0.1:7104", "peer_addr": "127.0.0.1:7204"})),
            202,
        ),
        ("DELETE", "/v1/cluster/nodes/2", None, 204),
        ("POST", "/v1/cluster/transfer", None, 200),
        ("POST", "/v1/cluster/snapshot", Some(json!({})), 202),
        ("GET", "/v1/cluster/verify", None, 200),
        ("GET", "/livez", None, 200),
        ("GET", "/readyz?verbose", None, 200),
        ("GET", "/leader", None, 200),
        ("GET", "/metrics", None, 200),
        ("GET", "/openapi.json", None, 200),
        ("GET", "/docs", None, 200),
    ]
}

/// `Node::call` holds the answers against their schemas.
#[tokio::test]
async fn every_route_answers_as_it_says() {
    let document = contract::document().await;
    let mut asked = BTreeSet::new();
    for users in ["/v1/users", "/api/users"] {
        let node = Node::furnished().await;
        node.say("hall", &["one", "two"]).await;
        let mut token = 0;
        for (method, path, body, status) in successes() {
            let verification = Verification {
                index: 7,
                revision: 3,
                nodes: Vec::new(),
            };
            node.replica.admin.lock().unwrap().verification = Some(verification);
            let granted = token.to_string();
            let path = path.replace("/v1/users", users).replace(TOKEN, &granted);
            let reply = match body {
                Some(body) => {
                    let body = body.to_string().replace(&format!("\"{TOKEN}\""), &granted);
                    node.send(method, &path, &[], body).await
                }
                None => node.ask(method, &path, &[]).await,
            };
            assert_eq!(reply.status, status, "{method} {path}");
            if method == "PUT" && path == "/v1/locks/deploy" && status == 200 {
                token = reply.json()["token"].as_u64().unwrap();
            }
            asked.insert((method, contract::route_of(document, &path).unwrap().0));
        }
    }
    let mut rest = operations(document);
    rest.retain(|(method, path, _)| !asked.contains(&(method.as_str(), path)));
    // Neither a stream nor a socket ends, and a session is ended by its own token: `stream`, `websocket` and
    // `sessions` have their tests, whose answers are held against the document too.
    let rest: Vec<_> = rest.iter().map(|(_, path, _)| *path).collect();
    assert_eq!(
        rest,
        [
            "/v1/rooms/{room}/stream",
            "/v1/sessions",
            "/v1/sessions/current",
            "/v1/ws"
        ]
    );
}

#[tokio::test]
async fn the_page_shows_everything_and_fetches_nothing() {
    let node = Node::new();
    let page = node.get("/docs").await.expect(200);
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert!(page.header("content-security-policy").starts_with("default-src 'none'"));
    let html = String::from_utf8(page.body.clone()).unwrap();
    let document = contract::document().await;
    for (method, path, operation) in operations(document) {
        let id = operation["operationId"].as_str().unwrap();
        assert!(html.contains(&format!("<article id=\"{id}\"")), "{id}");
        assert!(
            html.contains(&format!("<b>{method}</b> <code>{path}</code>")),
            "{method} {path}"
        );
    }
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        assert!(html.contains(&format!("id=\"schema-{name}\"")), "{name}");
    }
    for reference in html.split("href=\"").skip(1) {
        let target = reference.split('"').next().unwrap();
        let inside = target
            .strip_prefix('#')
            .is_some_and(|id| html.contains(&format!("id=\"{id}\"")));
        assert!(inside || target == "/openapi.json", "{target}");
    }
    for word in ["<script", "src=", "@import", "url("] {
        assert!(!html.contains(word), "{word}");
    }
}
