//! The one loop that performs a call: choose a node, ask it, judge the answer, and go on until it
//! is settled or the deadline has passed.

mod ending;
mod request;

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, RETRY_AFTER};

use crate::client::Client;
use crate::error::Error;
use crate::route::{Choice, Hints, backoff};
use crate::wire::{Cluster, Problem};
use ending::{LastWords, give_up, settle};
pub(crate) use request::Request;

/// An answer's body, in bytes: a page of 500 messages of 64 KiB, with room for JSON's escapes.
/// More is not read.
const BODY_BYTES_MAX: usize = 256 << 20;
/// A node gets so much less time than the client waits for it, so that its own words about a
/// time-out arrive.
const GRACE: Duration = Duration::from_millis(500);
/// The contract's upper bound of `Request-Timeout-Ms`.
const REQUEST_TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// How a node is asked beside a request that takes long, so that the request goes on at another node when this one
/// does nothing any more.
struct Probes {
    path: &'static str,
    /// Before each question.
    pause: Duration,
    /// For each answer.
    time: Duration,
    /// It may fail so many times in a row less one.
    failed_max: u32,
    /// Any answer will do, also a refusal: only silence is a failure.
    any_answer: bool,
}

/// Where the request waits for something: a node that has no leader will not grant it. A failover takes less.
const WHILE_IT_WAITS: Probes = Probes {
    path: "/readyz",
    pause: Duration::from_secs(2),
    time: Duration::from_secs(2),
    failed_max: 3,
    any_answer: false,
};
/// Other requests are answered within milliseconds, or late by a node that is busy or looks for a leader; that
/// one says at least that it lives. A process that was paused says nothing, and another leads after a second.
const WHILE_IT_WORKS: Probes = Probes {
    path: "/livez",
    pause: Duration::from_millis(300),
    time: Duration::from_millis(300),
    failed_max: 2,
    any_answer: true,
};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REQUEST_TIMEOUT_MS: HeaderName = HeaderName::from_static("request-timeout-ms");

/// How much of an answer an attempt takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Take {
    Whole,
    /// Only the headers: the caller reads the stream.
    Headers,
}

/// A success whose body may still be on its way.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) response: reqwest::Response,
    /// The node, for [`crate::route::Route::failed`].
    pub(crate) node: usize,
    body: Bytes,
}

/// What an attempt came to.
enum Verdict {
    Done(Box<Opened>),
    /// No further attempt would change it.
    Final(Error),
    Again(Again),
}

/// Why there has to be another attempt.
struct Again {
    detail: String,
    problem: Option<Box<Problem>>,
    retry_after: Option<Duration>,
    /// The write may have been applied by this attempt.
    uncertain: bool,
    /// The call's own deadline ended the attempt before the node had the usual time.
    cut_short: bool,
    /// 429: the caller itself is to slow down; another node is no way round that.
    throttled: bool,
}

impl Client {
    /// Performs the request and reads the whole answer.
    pub(crate) async fn execute(&self, request: &Request) -> Result<Bytes, Error> {
        Ok(self.perform(request, Take::Whole).await?.body)
    }

    /// Performs the request until a node begins to answer it well.
    pub(crate) async fn open(&self, request: &Request) -> Result<Opened, Error> {
        self.perform(request, Take::Headers).await
    }

    async fn perform(&self, request: &Request, take: Take) -> Result<Opened, Error> {
        let within = self.options.deadline + request.wait;
        let deadline = Instant::now() + within;
        let mut uncertain = false;
        let mut throttles = 0;
        let mut words = LastWords::default();
        loop {
            let now = Instant::now();
            let choice = self.shared.route().choose(request.is_write(), now);
            // No attempt could begin in time: waiting for the deadline would tell nothing more.
            if now + choice.wait >= deadline {
                return Err(give_up(request, words, uncertain, within));
            }
            if !choice.wait.is_zero() {
                tokio::time::sleep(choice.wait).await;
                // Others may have learnt more meanwhile.
                continue;
            }
            let usual = self.options.attempt.min(REQUEST_TIMEOUT_MAX) + GRACE + request.wait;
            let budget = usual.min(deadline - now);
            let attempt = self.attempt(request, &choice, budget, take, uncertain);
            let mut again = match attempt.await {
                Verdict::Done(opened) => {
                    self.shared.route().served(choice.index, request.is_write());
                    return Ok(*opened);
                }
                Verdict::Final(error) => {
                    self.shared.route().served(choice.index, request.is_write());
                    return Err(settle(request, error, uncertain));
                }
                Verdict::Again(again) => again,
            };
            again.detail = format!("{}: {}", choice.url, again.detail);
            again.cut_short &= budget < usual;
            tracing::debug!(path = request.path, detail = again.detail, "attempt failed");
            uncertain |= request.is_write() && again.uncertain;
            let jitter = rand::random_range(0.0..=1.0);
            let now = Instant::now();
            let (throttled, retry_after) = (again.throttled, again.retry_after);
            words.hear(choice.index, again);
            if throttled {
                let pause = retry_after.unwrap_or_default().max(backoff(throttles, jitter));
                throttles += 1;
                if now + pause >= deadline {
                    return Err(give_up(request, words, uncertain, within));
                }
                tokio::time::sleep(pause).await;
            } else {
                self.shared.route().failed(choice.index, now, retry_after, jitter);
            }
        }
    }

    /// `uncertain`: an earlier attempt may have been applied.
    async fn attempt(
        &self,
        request: &Request,
        choice: &Choice,
        budget: Duration,
        take: Take,
        uncertain: bool,
    ) -> Verdict {
        let (node, url) = (choice.index, &choice.url);
        // The node adds the wait by itself.
        let works = budget.saturating_sub(request.wait);
        // With little time left the node gets half of it.
        let asked = works.saturating_sub(GRACE).max(works / 2).max(Duration::from_millis(1));
        let mut builder = self
            .shared
            .http
            .request(request.method.clone(), format!("{url}{}", request.path))
            .headers(self.identity.clone())
            .headers(request.headers.clone())
            .header(REQUEST_TIMEOUT_MS, asked.as_millis().max(1) as u64);
        if let Some(key) = request.key() {
            builder = builder.header(IDEMPOTENCY_KEY, key);
        }
        if let Some((media_type, body)) = &request.body {
            builder = builder.header(CONTENT_TYPE, *media_type).body(body.clone());
        }
        let exchange = async {
            let mut response = match builder.send().await {
                Ok(response) => response,
                // A connection that was never made has carried nothing.
                Err(error) => return Verdict::Again(Again::lost(cause(&error), !error.is_connect())),
            };
            if self.shared.route().hear(node, hints(response.headers())) {
                self.learn_later(url);
            }
            if response.status().is_success() && take == Take::Headers {
                return Verdict::Done(Box::new(Opened {
                    response,
                    node,
                    body: Bytes::new(),
                }));
            }
            match read_body(&mut response).await {
                Ok(body) => judge(request, response, node, body, uncertain),
                Err(detail) => Verdict::Again(Again::lost(detail, true)),
            }
        };
        let probes = match request.wait.is_zero() {
            true => &WHILE_IT_WORKS,
            false => &WHILE_IT_WAITS,
        };
        tokio::select! {
            answered = tokio::time::timeout(budget, exchange) => match answered {
                Ok(verdict) => verdict,
                Err(_) => Verdict::Again(Again {
                    cut_short: true,
                    ..Again::lost(format!("no answer within {} ms", budget.as_millis()), true)
                }),
            },
            detail = self.unable(url, probes) => Verdict::Again(Again::lost(detail, true)),
        }
    }

    /// Ends when the probes of a node have failed for some time: a machine that is gone, or a process that stands
    /// still, closes no connection. The request then goes on at another node, under its key.
    async fn unable(&self, url: &str, probes: &Probes) -> String {
        let asks = self.with_times(probes.time, probes.time);
        let mut failures = 0;
        loop {
            tokio::time::sleep(probes.pause).await;
            match asks.once(url, &Request::read(probes.path.to_owned())).await {
                Ok(_) => failures = 0,
                Err(error) if probes.any_answer && is_answer(&error) => failures = 0,
                Err(_) if failures + 1 < probes.failed_max => failures += 1,
                Err(error) => return format!("{} failed while the request was there: {error}", probes.path),
            }
        }
    }

    /// Asks for the URLs of the cluster beside the calls, which go through followers meanwhile.
    pub(crate) fn learn_later(&self, url: &str) {
        if !self.shared.may_learn(Instant::now()) {
            return;
        }
        let (client, url) = (self.clone(), url.to_owned());
        tokio::spawn(async move {
            match client.cluster_at(&url).await {
                Ok(cluster) => client.shared.route().learn(&cluster),
                Err(error) => tracing::debug!(node = url, %error, "failed to learn the cluster's URLs"),
            }
        });
    }

    /// `/v1/cluster` of one node, asked once.
    pub(crate) async fn cluster_at(&self, url: &str) -> Result<Cluster, Error> {
        let body = self.once(url, &Request::read("/v1/cluster".to_owned())).await?;
        decode(&body, false)
    }

    /// Asks one node once, without failover, and without a body.
    pub(crate) async fn once(&self, url: &str, request: &Request) -> Result<Bytes, Error> {
        let budget = self.options.attempt.min(self.options.deadline);
        let exchange = async {
            let sent = self
                .shared
                .http
                .request(request.method.clone(), format!("{url}{}", request.path))
                .headers(self.identity.clone())
                .send()
                .await;
            let mut response = sent.map_err(|error| cause(&error))?;
            let body = read_body(&mut response).await?;
            Ok::<_, String>((response, body))
        };
        let unavailable = |detail| Error::Unavailable { detail, problem: None };
        let answer = tokio::time::timeout(budget, exchange).await;
        let (response, body) = answer
            .map_err(|_| unavailable(format!("no answer within {} ms", budget.as_millis())))?
            .map_err(unavailable)?;
        match judge(request, response, 0, body, false) {
            Verdict::Done(opened) => Ok(opened.body),
            Verdict::Final(error) => Err(error),
            Verdict::Again(again) => Err(Error::Unavailable {
                detail: again.detail,
                problem: again.problem,
            }),
        }
    }
}

impl Again {
    /// There is no whole answer.
    fn lost(detail: String, uncertain: bool) -> Self {
        Self {
            detail,
            problem: None,
            retry_after: None,
            uncertain,
            cut_short: false,
            throttled: false,
        }
    }
}

/// Reads a JSON body of the contract.
pub(crate) fn decode<T: serde::de::DeserializeOwned>(body: &[u8], write: bool) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|error| Error::BadResponse {
        detail: error.to_string(),
        write,
    })
}

/// What a whole answer means for the request.
fn judge(request: &Request, response: reqwest::Response, node: usize, body: Bytes, uncertain: bool) -> Verdict {
    let status = response.status();
    if status.is_success() || request.is_done_by(status, uncertain) {
        return Verdict::Done(Box::new(Opened { response, node, body }));
    }
    if status.is_redirection() || status.is_informational() {
        let detail = format!("unexpected status {status}");
        return Verdict::Final(Error::BadResponse {
            detail,
            write: request.is_write(),
        });
    }
    let problem = problem(status, &body);
    let again = match status {
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => true,
        _ if status.is_client_error() => false,
        // A full disk says whether it is worth while; other 5xx are troubles of one node.
        StatusCode::INSUFFICIENT_STORAGE => problem.retryable,
        _ => true,
    };
    if !again {
        return Verdict::Final(Error::Refused(Box::new(problem)));
    }
    Verdict::Again(Again {
        detail: format!("{} ({} {})", problem.detail, problem.status, problem.code),
        retry_after: retry_after(response.headers()).filter(|_| !is_about_one_node(&problem.code)),
        uncertain: problem.outcome != "not_applied",
        cut_short: false,
        throttled: status == StatusCode::TOO_MANY_REQUESTS,
        problem: Some(Box::new(problem)),
    })
}

/// The problem of the body; a bare error (from below the node's routing, or a proxy) is put into
/// the same words, and says nothing about the outcome unless it refuses.
fn problem(status: StatusCode, body: &[u8]) -> Problem {
    serde_json::from_slice(body).unwrap_or_else(|_| Problem {
        type_: "about:blank".into(),
        title: status.canonical_reason().unwrap_or("Error").into(),
        status: status.as_u16(),
        detail: String::from_utf8_lossy(&body[..body.len().min(200)]).trim().to_owned(),
        code: format!("http_{}", status.as_u16()),
        request_id: String::new(),
        retryable: !status.is_client_error(),
        outcome: if status.is_client_error() {
            "not_applied"
        } else {
            "unknown"
        }
        .into(),
    })
}

async fn read_body(response: &mut reqwest::Response) -> Result<Bytes, String> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| cause(&error))? {
        if body.len() + chunk.len() > BODY_BYTES_MAX {
            return Err(format!("the answer is larger than {BODY_BYTES_MAX} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

fn hints(headers: &HeaderMap) -> Hints {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    Hints {
        node: text("x-quorate-node").and_then(|id| id.parse().ok()),
        leader: text("x-quorate-leader").map(|id| id.parse().ok()),
    }
}

/// Whether somebody has answered, if only to refuse.
fn is_answer(error: &Error) -> bool {
    match error {
        Error::Unavailable { problem, .. } => problem.is_some(),
        Error::Refused(_) | Error::BadResponse { .. } => true,
        _ => false,
    }
}

/// A node that knows no leader, is behind or goes down says nothing of load: another one serves, or this one does as
/// soon as there is a leader, long before the second is over that it asks for.
fn is_about_one_node(code: &str) -> bool {
    matches!(code, "no_leader" | "not_ready" | "shutting_down")
}

/// Whole seconds; the form with a date is not used by the contract.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()
        .map(Duration::from_secs)
}

/// What lies at the bottom of an error; the wrappers around it tell a caller nothing more.
fn cause(error: &reqwest::Error) -> String {
    let mut deepest: &dyn std::error::Error = error;
    while let Some(next) = deepest.source() {
        deepest = next;
    }
    let what = if error.is_connect() {
        "failed to connect"
    } else {
        "the connection failed"
    };
    format!("{what}: {deepest}")
}

#[cfg(test)]
mod tests;
