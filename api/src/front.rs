//! What happens around every request: its id, its caller's rate, its place among the requests at
//! work, its body, the headers of its answer, its line in the log and in the metrics, and a 500 if
//! a handler panics.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::response::Response;
use futures::FutureExt;
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Version};
use hyper::body::Body as _;
use quorate_state_machine::Code;

use crate::answer;
use crate::app::{self, App};
use crate::body::{self, Received};
use crate::headers::{self, X_LEADER, X_LEVEL, X_NODE, X_POSITION, X_REQUEST_ID, X_TERM, X_USER};
use crate::operation::Operation;
use crate::places::Class;
use crate::problem::{Kind, Problem};
use crate::rate_key::RateKey;
use crate::rate_limit::Verdict;
use crate::request::Call;
use crate::{sign_in, socket};

/// How a route is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Health, metrics, and what is no route: answered even when the node is overloaded.
    Probe,
    Read,
    Write(BodyRule),
}

/// Which body a write takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyRule {
    /// None; one that comes is read (it counts for the idempotency key) and otherwise ignored.
    Unused,
    Json,
    /// As JSON, but no body is an empty object.
    OptionalJson,
    /// RFC 7396, under its own media type or as plain JSON.
    MergePatch,
}

/// Runs one request from its first header to its answer.
pub(crate) async fn enter<F, Fut>(
    app: Arc<App>,
    operation: Arc<Operation>,
    handler: F,
    request: Request<Body>,
) -> Response
where
    F: FnOnce(Call) -> Fut,
    Fut: Future<Output = Result<Response, Problem>>,
{
    let started = Instant::now();
    let (route, rule) = (operation.path, operation.rule);
    let (mut parts, mut body) = request.into_parts();
    if route == socket::ROUTE {
        socket::reveal_token(&mut parts.headers);
    }
    let rate = rate(&app, &parts, route, rule).await;
    let frame = Frame::of(&parts, route, rule, rate);
    let request_id = frame.request_id();
    let answered = AssertUnwindSafe(admit(&app, operation, &frame, parts, &mut body, handler))
        .catch_unwind()
        .await;
    let mut response = match answered {
        Ok(Ok(response)) if rule == Rule::Read => {
            answer::held(&app.answers, response).unwrap_or_else(|problem| problem.into_response(&request_id))
        }
        Ok(Ok(response)) => response,
        Ok(Err(problem)) => {
            body::drain(body, frame.declared_bytes, frame.expects_continue).await;
            problem.into_response(&request_id)
        }
        Err(_panic) => {
            // The panic itself was reported by the hook, with its place.
            let is_write = matches!(rule, Rule::Write(_));
            Problem::internal("the request met a defect of this node", is_write).into_response(&request_id)
        }
    };
    frame.finish(&app, response.headers_mut());
    frame.record(&app, response.status().as_u16(), started.elapsed());
    response
}

/// What is kept of a request while its handler has the rest.
struct Frame {
    route: &'static str,
    rule: Rule,
    method: Method,
    request_id: HeaderValue,
    caller: Option<HeaderValue>,
    level: Option<&'static str>,
    declared_bytes: Option<u64>,
    expects_continue: bool,
    /// None where no limit applies.
    rate: Option<Verdict>,
}

impl Frame {
    fn of(parts: &Parts, route: &'static str, rule: Rule, rate: Option<Verdict>) -> Self {
        let level = match rule {
            Rule::Read => level(parts.uri.query()),
            Rule::Probe | Rule::Write(_) => None,
        };
        Self {
            route,
            rule,
            method: parts.method.clone(),
            request_id: headers::request_id(&parts.headers),
            // Never the token itself.
            caller: match parts.headers.contains_key(header::AUTHORIZATION) {
                true => Some(HeaderValue::from_static("(token)")),
                false => parts.headers.get(X_USER).cloned(),
            },
            level,
            declared_bytes: declared_bytes(&parts.headers),
            expects_continue: parts.headers.contains_key(header::EXPECT),
            rate,
        }
    }

    fn request_id(&self) -> String {
        self.request_id
            .to_str()
            .expect("a request id is visible ASCII")
            .to_owned()
    }

    /// The headers that every answer has, errors included.
    fn finish(&self, app: &App, headers: &mut HeaderMap) {
        let status = app.replica.status();
        headers.insert(X_REQUEST_ID, self.request_id.clone());
        headers.insert(X_NODE, HeaderValue::from(status.node));
        headers.insert(
            X_LEADER,
            status.leader.map_or(HeaderValue::from_static(""), HeaderValue::from),
        );
        headers.insert(X_TERM, HeaderValue::from(status.term));
        if !headers.contains_key(X_POSITION) {
            headers.insert(X_POSITION, app::header(status.position));
        }
        if let Some(level) = self.level
            && !headers.contains_key(X_LEVEL)
        {
            headers.insert(X_LEVEL, HeaderValue::from_static(level));
        }
        for (name, value) in self.rate.iter().flat_map(|verdict| verdict.headers(USER_POLICY)) {
            headers.insert(name, value);
        }
    }

    /// Neither texts nor passwords nor error details, which may quote them.
    fn record(&self, app: &App, status: u16, took: Duration) {
        let noted = Noted {
            route: self.route,
            method: method_label(&self.method),
            status,
            took,
        };
        let id = self.request_id.to_str().unwrap_or_default();
        let caller = self
            .caller
            .as_ref()
            .map_or("root", |caller| caller.to_str().unwrap_or("(not ASCII)"));
        noted.note(app, id, caller);
    }
}

/// A request and how it was answered, for the metrics and the log.
pub(crate) struct Noted {
    pub(crate) route: &'static str,
    /// One of few.
    pub(crate) method: &'static str,
    pub(crate) status: u16,
    pub(crate) took: Duration,
}

impl Noted {
    pub(crate) fn note(&self, app: &App, id: impl fmt::Display, caller: &str) {
        let Self {
            route,
            method,
            status,
            took,
        } = *self;
        app.metrics.answered(route, method, status, took);
        let ms = took.as_secs_f64() * 1000.0;
        // 503 and 504 are what a node says while it has no leader, one line for each request:
        // worth seeing, as are all 5xx. But probes ask again and again, and their 503 is an answer.
        let probe = matches!(route, "/livez" | "/readyz" | "/leader");
        if status >= 500 && !probe {
            tracing::warn!(request_id = %id, method, route, status, ms, caller, "request failed");
        } else if status >= 400 && !probe {
            tracing::info!(request_id = %id, method, route, status, ms, caller, "request refused");
        } else {
            tracing::debug!(request_id = %id, method, route, status, ms, caller, "request answered");
        }
    }
}

/// What `RateLimit` calls the limit of a user's requests.
const USER_POLICY: &str = "user";

/// What the caller's bucket says of this request. Whoever watches the node is never counted; who signs in is
/// nobody yet, and has limits of his own.
async fn rate(app: &App, parts: &Parts, route: &str, rule: Rule) -> Option<Verdict> {
    if rule == Rule::Probe || route == sign_in::ROUTE {
        return None;
    }
    let limiter = app.user_rate.as_ref()?;
    Some(limiter.check(&RateKey::of(app, &parts.headers).await?))
}

/// 429 for what is one request too many.
fn keep_to(app: &App, verdict: Verdict) -> Result<(), Problem> {
    let Some(seconds) = verdict.retry_after_s() else {
        return Ok(());
    };
    app.metrics.refused.with_label_values(&["user_rate"]).inc();
    let problem = Problem::new(Kind::Refused(Code::RateLimited), "this user asks too often");
    Err(problem.with_header(header::RETRY_AFTER, HeaderValue::from(seconds)))
}

/// The same for a request that is a frame of a socket.
pub(crate) fn check_rate(app: &App, key: Option<&RateKey>) -> Result<(), Problem> {
    match (&app.user_rate, key) {
        (Some(limiter), Some(key)) => keep_to(app, limiter.check(key)),
        _ => Ok(()),
    }
}

/// The level that a read asks for, as its answer's header repeats it; none where it is unknown.
fn level(query: Option<&str>) -> Option<&'static str> {
    let asked = query
        .unwrap_or_default()
        .split('&')
        .find_map(|pair| pair.strip_prefix("level="));
    match asked {
        None | Some("linearizable") => Some("linearizable"),
        Some("local") => Some("local"),
        Some(_) => None,
    }
}

/// A label's values must be few, and a method may be any token.
fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

fn declared_bytes(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Finds the request a place, reads its body and hands both on.
async fn admit<F, Fut>(
    app: &Arc<App>,
    operation: Arc<Operation>,
    frame: &Frame,
    parts: Parts,
    body: &mut Body,
    handler: F,
) -> Result<Response, Problem>
where
    F: FnOnce(Call) -> Fut,
    Fut: Future<Output = Result<Response, Problem>>,
{
    // Before anything costs work.
    frame.rate.map_or(Ok(()), |verdict| keep_to(app, verdict))?;
    let class = Class::of(frame.route, frame.rule);
    class.map_or(Ok(()), |class| app.places.look(class))?;
    let Received { bytes, share: _share } = match frame.rule {
        Rule::Probe => Received::default(),
        Rule::Read => {
            if parts.version == Version::HTTP_2 {
                // Nobody reads it, and what has come of it would stay in memory until the answer.
                *body = Body::empty();
            }
            Received::default()
        }
        Rule::Write(rule) => {
            check_media_type(&parts.headers, rule, body.is_end_stream())?;
            body::read(body, frame.declared_bytes, &app.limits, &app.bodies, &app.places).await?
        }
    };
    // Only now: a body on its way must not keep out those that are there.
    let place = class.map(|class| app.places.take(class)).transpose()?;
    let call = Call {
        app: Arc::clone(app),
        operation,
        parts,
        body: bytes,
        request_id: frame.request_id(),
        place: Mutex::new(place),
    };
    handler(call).await
}

fn check_media_type(headers: &HeaderMap, rule: BodyRule, is_empty: bool) -> Result<(), Problem> {
    let wanted: &[&str] = match rule {
        BodyRule::Unused => return Ok(()),
        BodyRule::Json | BodyRule::OptionalJson => &["application/json"],
        BodyRule::MergePatch => &["application/merge-patch+json", "application/json"],
    };
    let refuse = || {
        let detail = format!("the body must be {} in UTF-8, not compressed", wanted.join(" or "));
        Problem::new(Kind::UnsupportedMediaType, detail)
    };
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let compressed = headers
        .get(header::CONTENT_ENCODING)
        .is_some_and(|encoding| encoding != "identity");
    match (types.next(), types.next()) {
        (None, _) if rule == BodyRule::OptionalJson && is_empty => Ok(()),
        (Some(value), None) if !compressed && value.to_str().is_ok_and(|value| is_media_type(value, wanted)) => Ok(()),
        _ => Err(refuse()),
    }
}

/// One of the wanted types; a charset, if there is one, must be UTF-8.
fn is_media_type(value: &str, wanted: &[&str]) -> bool {
    let mut parts = value.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    wanted.iter().any(|wanted| essence.eq_ignore_ascii_case(wanted))
        && parts
            .filter_map(|parameter| parameter.split_once('='))
            .all(|(name, value)| {
                !name.eq_ignore_ascii_case("charset") || value.trim_matches('"').eq_ignore_ascii_case("utf-8")
            })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types() {
        let wanted = &["application/json"];
        for value in [
            "application/json",
            "Application/JSON; charset=UTF-8",
            "application/json;charset=\"utf-8\"",
        ] {
            assert!(is_media_type(value, wanted), "{value}");
        }
        for value in [
            "",
            "text/plain",
            "application/jsonx",
            "application/json; charset=latin1",
            "text/json",
        ] {
            assert!(!is_media_type(value, wanted), "{value}");
        }
    }

    #[test]
    fn levels() {
        assert_eq!(level(None), Some("linearizable"));
        assert_eq!(level(Some("limit=1&level=local")), Some("local"));
        assert_eq!(level(Some("level=strong")), None);
    }
}
