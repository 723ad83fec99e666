//! Answers that are not errors.

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use http::header::{self, HeaderName, HeaderValue};
use quorate_state_machine::{MessageRef, Position};
use serde::Serialize;

use crate::app::{Committed, header as position_header};
use crate::headers::{IDEMPOTENCY_REPLAYED, X_POSITION};
use crate::message;
use crate::problem::Problem;

/// Most answers about one thing fit without growing the buffer.
const JSON_BYTES_TYPICAL: usize = 512;
/// With those that [`crate::front`] adds: a map that grows takes its headers over again each time.
const HEADERS_TYPICAL: usize = 12;

pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Result<Response, Problem> {
    let mut buffer = Vec::with_capacity(JSON_BYTES_TYPICAL);
    serde_json::to_writer(&mut buffer, body)
        .map_err(|error| Problem::internal(format!("failed to write the answer: {error}"), false))?;
    Ok(json_bytes(status, buffer))
}

/// JSON that is written already.
pub(crate) fn json_bytes(status: StatusCode, json: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(json));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.reserve(HEADERS_TYPICAL);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // Every answer is of a moment; a cache that kept one would answer below the level asked for.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// One message, as [`message::write`] shows it.
pub(crate) fn message(message: &MessageRef<'_>) -> Response {
    let mut buffer = Vec::with_capacity(JSON_BYTES_TYPICAL + message.text.map_or(0, str::len));
    message::write(&mut buffer, message);
    json_bytes(StatusCode::OK, buffer)
}

pub(crate) fn plain(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

pub(crate) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// Headers that several kinds of answers have.
pub(crate) trait With: Sized {
    fn with(self, name: HeaderName, value: HeaderValue) -> Self;

    fn with_position(self, position: Position) -> Self {
        self.with(X_POSITION, position_header(position))
    }

    /// The strong tag of an entity's revision.
    fn with_etag(self, rev: u64) -> Self {
        let tag = HeaderValue::try_from(format!("\"{rev}\"")).expect("a quoted number is visible ASCII");
        self.with(header::ETAG, tag)
    }

    fn with_location(self, location: &str) -> Self {
        match HeaderValue::try_from(location) {
            Ok(location) => self.with(header::LOCATION, location),
            Err(_) => self,
        }
    }

    /// The headers of every committed change.
    fn with_commit(self, committed: &Committed) -> Self {
        let this = self.with_position(committed.position);
        if committed.replayed {
            this.with(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"))
        } else {
            this
        }
    }
}

impl With for Response {
    fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers_mut().insert(name, value);
        self
    }
}
