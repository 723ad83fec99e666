//! The HTTP of the contract, written apart from the project's own client: a call is described,
//! sent to one node, and its answer kept whole. No redirect is followed and nothing is retried.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use serde_json::Value;

/// How long past its own time-out a node may take to answer before the test stops waiting.
pub const GRACE: Duration = Duration::from_secs(5);
/// What the contract promises when a request names no time-out.
const REQUEST_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A name as it stands in a path or a header.
pub fn encoded(name: &str) -> String {
    utf8_percent_encode(name, UNRESERVED).to_string()
}

/// One request, for whichever node it is sent to.
#[derive(Debug, Clone)]
pub struct Call {
    pub method: Method,
    /// With its query, percent-encoded.
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Option<Vec<u8>>,
    timeout: Duration,
}

impl Call {
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        let path = path.into();
        Self {
            method,
            path,
            headers: Vec::new(),
            body: None,
            timeout: REQUEST_TIMEOUT_DEFAULT,
        }
    }

    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    pub fn post(path: impl Into<String>, body: &Value) -> Self {
        Self::new(Method::POST, path).json(body)
    }

    pub fn put(path: impl Into<String>, body: &Value) -> Self {
        Self::new(Method::PUT, path).json(body)
    }

    /// The same call to another path.
    pub fn at(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    pub fn json(self, body: &Value) -> Self {
        self.raw("application/json", body.to_string().into_bytes())
    }

    /// Any bytes under any media type.
    pub fn raw(mut self, media_type: &str, body: Vec<u8>) -> Self {
        self.body = Some(body);
        self.header(CONTENT_TYPE.as_str(), media_type)
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// The caller in open mode.
    pub fn as_user(self, user: &str) -> Self {
        self.header("X-Quorate-User", encoded(user))
    }

    pub fn key(self, key: &str) -> Self {
        self.header("Idempotency-Key", key)
    }

    /// The state that the answer must at least reflect.
    pub fn min_position(self, position: &str) -> Self {
        self.header("X-Quorate-Min-Position", position)
    }

    /// `Request-Timeout-Ms`, in whole milliseconds.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self.headers.retain(|(name, _)| name != "Request-Timeout-Ms");
        self.header("Request-Timeout-Ms", timeout.as_millis().to_string())
    }
}

/// Why there is no answer, and whether the request may have had an effect.
#[derive(Debug)]
pub enum NoAnswer {
    /// The node was never reached: nothing happened.
    NotSent(reqwest::Error),
    /// The connection broke or nothing came in time: it may have happened.
    Unknown(reqwest::Error),
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, error) = match self {
            Self::NotSent(error) => ("not sent", error),
            Self::Unknown(error) => ("no answer", error),
        };
        write!(f, "{what}: {error}")?;
        let mut cause = std::error::Error::source(error);
        while let Some(inner) = cause {
            write!(f, ": {inner}")?;
            cause = inner.source();
        }
        Ok(())
    }
}

impl std::error::Error for NoAnswer {}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    /// From before the request was sent until the body had arrived.
    pub took: Duration,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {self}"))
    }

    /// `X-Quorate-Position`: the state that this answer reflects.
    pub fn position(&self) -> Result<String> {
        let position = self
            .header("X-Quorate-Position")
            .with_context(|| format!("no position: {self}"))?;
        Ok(position.to_owned())
    }

    /// `code` of a problem, empty where there is none.
    pub fn code(&self) -> String {
        let code = self
            .json()
            .ok()
            .and_then(|json| Some(json.get("code")?.as_str()?.to_owned()));
        code.unwrap_or_default()
    }

    /// The answer, if its status is this one; else an error that shows it.
    pub fn expect_status(self, status: u16) -> Result<Self> {
        anyhow::ensure!(self.status == status, "expected status {status}, got {self}");
        Ok(self)
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = String::from_utf8_lossy(&self.body);
        let shown: String = body.chars().take(400).collect();
        write!(f, "{} after {:?}: {shown}", self.status, self.took)
    }
}

/// Connections to all nodes, shared by all calls of a test.
#[derive(Debug, Clone)]
pub struct Http {
    client: reqwest::Client,
}

impl Http {
    pub fn new() -> Result<Self> {
        let client = reqwest::Client::builder()
            // The nodes are on loopback, whatever proxy the environment names.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            // A killed node's connections are found dead on use; fewer of them make fewer unknown outcomes.
            .pool_idle_timeout(Duration::from_secs(5))
            .build()?;
        Ok(Self { client })
    }

    /// Sends the call to the node at `url` and waits for the whole answer.
    pub async fn send(&self, url: &str, call: Call) -> Result<Answer, NoAnswer> {
        let limit = call.timeout + GRACE;
        let sent = Instant::now();
        let response = self.request(url, call).timeout(limit).send().await.map_err(no_answer)?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await.map_err(no_answer)?.to_vec();
        Ok(Answer {
            status,
            headers,
            body,
            took: sent.elapsed(),
        })
    }

    /// Sends the call and hands out the response before its body has ended.
    pub(crate) async fn open(&self, url: &str, call: Call) -> Result<reqwest::Response, NoAnswer> {
        self.request(url, call).send().await.map_err(no_answer)
    }

    fn request(&self, url: &str, call: Call) -> reqwest::RequestBuilder {
        let mut request = self.client.request(call.method, format!("{url}{}", call.path));
        for (name, value) in call.headers {
            request = request.header(name, value);
        }
        match call.body {
            Some(body) => request.body(body),
            None => request,
        }
    }
}

fn no_answer(error: reqwest::Error) -> NoAnswer {
    if error.is_connect() || error.is_builder() {
        NoAnswer::NotSent(error)
    } else {
        NoAnswer::Unknown(error)
    }
}
