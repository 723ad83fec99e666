//! Requests that cost the generator little: what can be prepared is, nothing is retried, and an answer's body is
//! read but parsed only where the workload needs it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use quorate_client::wire::Problem;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use super::stage::Stage;
use crate::plan::CLIENTS_MAX;
use crate::target::Fault;

/// A node that does not take a connection within this time is not there.
pub(crate) const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// The code of a request for which no node took a connection.
pub(crate) const NO_CONNECTION: &str = "no_connection";
/// The code of a request whose connection ended before its answer came.
pub(crate) const CONNECTION_LOST: &str = "connection_lost";
/// Everything outside RFC 3986's unreserved characters.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// How requests reach a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// A connection carries one request at a time.
    Http1,
    /// A connection carries many.
    Http2,
}

/// Which nodes, as whom, and over how many connections.
#[derive(Debug, Clone)]
pub struct Wiring {
    /// Client URLs; clients are spread over them.
    pub nodes: Vec<String>,
    pub token: Option<String>,
    /// Whom all act as in open mode who act as nobody else.
    pub user: Option<String>,
    pub protocol: Protocol,
    /// At most so many. HTTP/1.1: whoever finds all taken waits, as at a pool. HTTP/2: exactly so many to
    /// each node.
    pub connections: usize,
}

#[derive(Debug)]
pub struct Http {
    nodes: Vec<Url>,
    /// One for HTTP/1.1, which opens connections as they are needed; one a connection for HTTP/2.
    clients: Vec<reqwest::Client>,
    room: Semaphore,
    headers: HeaderMap,
    user: Option<String>,
}

/// An answer with status and body; whether it is a success is judged by [`Http::expect`].
struct Answer {
    status: StatusCode,
    body: Bytes,
}

impl Http {
    /// # Errors
    /// For a URL or a token that cannot be sent, or no node, or no connection.
    pub fn new(wiring: &Wiring) -> Result<Self> {
        ensure!(!wiring.nodes.is_empty(), "no node to ask");
        ensure!(
            (1..=CLIENTS_MAX).contains(&wiring.connections),
            "connections: from 1 to {CLIENTS_MAX}"
        );
        let mut nodes = Vec::new();
        for node in &wiring.nodes {
            nodes.push(Url::parse(node).with_context(|| format!("{node} is no URL"))?);
        }
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(token) = &wiring.token {
            let mut value =
                HeaderValue::from_str(&format!("Bearer {token}")).context("the token cannot stand in a header")?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let count = match wiring.protocol {
            Protocol::Http1 => 1,
            Protocol::Http2 => wiring.connections,
        };
        let mut clients = Vec::new();
        for _ in 0..count {
            let mut builder = reqwest::Client::builder()
                .connect_timeout(CONNECT_WITHIN)
                .tcp_nodelay(true)
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .pool_max_idle_per_host(usize::MAX)
                .user_agent("quorate-bench");
            if wiring.protocol == Protocol::Http2 {
                builder = builder.http2_prior_knowledge();
            }
            clients.push(builder.build().context("failed to set up HTTP")?);
        }
        let at_once = match wiring.protocol {
            Protocol::Http1 => wiring.connections,
            Protocol::Http2 => Semaphore::MAX_PERMITS,
        };
        Ok(Self {
            nodes,
            clients,
            room: Semaphore::new(at_once),
            headers,
            user: wiring.user.clone(),
        })
    }

    pub(crate) fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// The headers of whoever asks: with the acting user of open mode, if any.
    pub(crate) fn headers(&self, user: Option<&str>) -> HeaderMap {
        let mut headers = self.headers.clone();
        if let Some(user) = user.or(self.user.as_deref()) {
            let value = HeaderValue::from_str(&encode(user)).expect("percent-encoded text is ASCII");
            headers.insert("x-quorate-user", value);
        }
        headers
    }

    /// Those of each user as whom clients act.
    pub(crate) fn headers_by_user(&self, stage: &Stage) -> Vec<HeaderMap> {
        let users = (0..stage.users()).map(|user| stage.user_of(user));
        users.map(|user| self.headers(user.as_deref())).collect()
    }

    /// The path, on each node: to be made once and cloned for each request.
    pub(crate) fn urls(&self, path: &str) -> Vec<Url> {
        (0..self.nodes.len()).map(|client| self.url(client, path)).collect()
    }

    /// The path, on the node of this client.
    pub(crate) fn url(&self, client: usize, path: &str) -> Url {
        let mut url = self.nodes[client % self.nodes.len()].clone();
        let (path, query) = match path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (path, None),
        };
        url.set_path(path);
        url.set_query(query);
        url
    }

    /// Sends it and reads the whole answer, which must be a success.
    pub(crate) async fn ask(
        &self,
        client: usize,
        method: Method,
        url: Url,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Bytes, Fault> {
        let mut request = reqwest::Request::new(method, url);
        request.headers_mut().clone_from(headers);
        if !body.is_empty() {
            *request.body_mut() = Some(body.into());
        }
        let _place = self.room.acquire().await.expect("the semaphore is never closed");
        let answer = self.exchange(client, request).await.map_err(|error| lost(&error))?;
        judge(answer)
    }

    async fn exchange(&self, client: usize, request: reqwest::Request) -> Result<Answer, reqwest::Error> {
        let response = self.clients[client % self.clients.len()].execute(request).await?;
        let status = response.status();
        let body = response.bytes().await?;
        Ok(Answer { status, body })
    }

    /// Opens a stream; the connection is its own and has no part in the pool's bound.
    pub(crate) async fn open(&self, client: usize, url: Url, headers: &HeaderMap) -> Result<reqwest::Response, Fault> {
        let mut request = reqwest::Request::new(Method::GET, url);
        request.headers_mut().clone_from(headers);
        let response = self.clients[client % self.clients.len()].execute(request).await;
        let response = response.map_err(|error| lost(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.bytes().await.map_err(|error| lost(&error))?;
        Err(refused(status, &body))
    }
}

fn judge(answer: Answer) -> Result<Bytes, Fault> {
    match answer.status.is_success() {
        true => Ok(answer.body),
        false => Err(refused(answer.status, &answer.body)),
    }
}

/// A refusal by the code of its problem, or else by its status.
pub(crate) fn refused(status: StatusCode, body: &[u8]) -> Fault {
    match serde_json::from_slice::<Problem>(body) {
        Ok(problem) => Fault::code(problem.code),
        Err(_) => Fault::code(format!("http_{}", status.as_u16())),
    }
}

/// There is no answer.
pub(crate) fn lost(error: &reqwest::Error) -> Fault {
    Fault::code(if error.is_connect() {
        NO_CONNECTION
    } else {
        CONNECTION_LOST
    })
}

/// What of an answer the workload needs.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Fault> {
    serde_json::from_slice(body).map_err(|error| Fault::Wrong(format!("an answer is not of the contract: {error}")))
}

/// A name as it stands in a path or a header.
pub(crate) fn encode(name: &str) -> String {
    utf8_percent_encode(name, RESERVED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_named_by_the_store_or_else_by_its_status() {
        let problem =
            br#"{"type":"about:blank","title":"t","status":429,"detail":"d","code":"overloaded","request_id":"",
                           "retryable":true,"outcome":"not_applied"}"#;
        assert_eq!(
            refused(StatusCode::TOO_MANY_REQUESTS, problem),
            Fault::code("overloaded")
        );
        assert_eq!(refused(StatusCode::BAD_GATEWAY, b"<html>"), Fault::code("http_502"));
    }

    #[test]
    fn paths_are_joined_to_every_node() {
        let wiring = Wiring {
            nodes: vec!["http://127.0.0.1:1".into(), "http://127.0.0.1:2".into()],
            token: Some("secret".into()),
            user: None,
            protocol: Protocol::Http1,
            connections: 1,
        };
        let http = Http::new(&wiring).unwrap();
        let urls = http.urls(&format!("/v1/rooms/{}/messages?limit=2", encode("张 %")));
        let expected = "http://127.0.0.1:2/v1/rooms/%E5%BC%A0%20%25/messages?limit=2";
        assert_eq!((urls.len(), urls[1].as_str()), (2, expected));
        let headers = http.headers(Some("张"));
        assert_eq!(headers["x-quorate-user"], "%E5%BC%A0");
        assert_eq!(headers[AUTHORIZATION], "Bearer secret");
        assert!(
            Http::new(&Wiring {
                nodes: vec![],
                ..wiring.clone()
            })
            .is_err()
        );
        assert!(
            Http::new(&Wiring {
                connections: 0,
                ..wiring
            })
            .is_err()
        );
    }
}
