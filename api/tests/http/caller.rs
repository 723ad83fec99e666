//! Calling the router as a function.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use quorate_api::{ApiConfig, router};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::contract;
use crate::memory::MemoryReplica;

pub(crate) struct Node {
    pub(crate) replica: Arc<MemoryReplica>,
    pub(crate) router: Router,
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Node {
    pub(crate) fn new() -> Self {
        Self::with(ApiConfig::default())
    }

    pub(crate) fn with(config: ApiConfig) -> Self {
        Self::over(MemoryReplica::new(), config)
    }

    pub(crate) fn over(replica: Arc<MemoryReplica>, config: ApiConfig) -> Self {
        let router = router(replica.clone(), config);
        Self { replica, router }
    }

    /// A node with users ann and bob, the public room `hall` and the group `den` of ann.
    pub(crate) async fn furnished() -> Self {
        Self::furnished_with(ApiConfig::default()).await
    }

    pub(crate) async fn furnished_with(config: ApiConfig) -> Self {
        let node = Self::with(config);
        for user in ["ann", "bob"] {
            node.post("/v1/users", json!({ "user": user })).await.expect(201);
        }
        node.post("/v1/rooms", json!({"room": "hall", "kind": "public"}))
            .await
            .expect(201);
        node.post("/v1/rooms", json!({"room": "den", "kind": "group", "members": ["ann"]}))
            .await
            .expect(201);
        node
    }

    pub(crate) async fn call(&self, request: Request<Body>) -> Reply {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = in_time(body.collect()).await.unwrap().to_bytes().to_vec();
        contract::check(method.as_str(), &path, parts.status.as_u16(), &parts.headers, &body).await;
        Reply {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }

    /// `GET` and the like, with headers and no body.
    pub(crate) async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
        self.call(request(method, path, headers, Body::empty())).await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, &[]).await
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Reply {
        let mut request = request(method, path, headers, body);
        request
            .headers_mut()
            .entry("content-type")
            .or_insert("application/json".parse().unwrap());
        self.call(request).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Reply {
        self.send("POST", path, &[], body.to_string()).await
    }

    /// Sends the texts to the room, in order.
    pub(crate) async fn say(&self, room: &str, texts: &[&str]) {
        for text in texts {
            self.post(&format!("/v1/rooms/{room}/messages"), json!({ "text": text }))
                .await
                .expect(201);
        }
    }
}

/// What does not happen within this time does not happen: a test then fails instead of hanging.
pub(crate) async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what)
        .await
        .expect("it happens in time")
}

pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.into()).unwrap()
}

impl Reply {
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self
    }

    /// The error of that status and code, in the contract's form.
    #[track_caller]
    pub(crate) fn problem(self, status: u16, code: &str) -> Value {
        let this = self.expect(status);
        assert_eq!(this.header("content-type"), "application/problem+json");
        let problem = this.json();
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        assert_eq!(problem["request_id"], this.header("x-request-id"), "{problem}");
        for field in ["type", "title", "detail"] {
            assert!(
                problem[field].as_str().is_some_and(|text| !text.is_empty()),
                "{field} of {problem}"
            );
        }
        assert!(problem["retryable"].is_boolean());
        assert!(["not_applied", "unknown"].contains(&problem["outcome"].as_str().unwrap()));
        problem
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&self.body)))
    }

    /// Empty where it is absent.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}
