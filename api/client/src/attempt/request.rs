//! What is sent, and what sending it again does.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode};

/// One logical request; all its attempts send the same.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(super) method: Method,
    /// With the query, encoded.
    pub(super) path: String,
    pub(super) body: Option<(&'static str, Bytes)>,
    repetition: Repetition,
    pub(super) headers: HeaderMap,
    /// How long the node may wait by agreement, beside the time that it works on it.
    pub(super) wait: Duration,
}

/// What a second attempt of the same request does.
#[derive(Debug, Clone)]
enum Repetition {
    /// Reads again.
    Read,
    /// A write with an idempotency key: happens once, and is answered as the first time.
    Keyed(String),
    /// A change whose every attempt asks for the same, and is decided anew.
    Idempotent,
    /// The same, but whoever has asked for it can ask nothing more.
    SignOut,
    /// Of a lock: twice is once, and that it is held by nobody with this token is so whatever became of an earlier
    /// attempt. A key would be remembered by the cluster for a day, every few seconds another.
    Renewal,
    /// Of a lock: after it there is nothing to give back.
    Release,
}

impl Request {
    pub(crate) fn read(path: String) -> Self {
        Self {
            method: Method::GET,
            path,
            body: None,
            repetition: Repetition::Read,
            headers: HeaderMap::new(),
            wait: Duration::ZERO,
        }
    }

    /// A change that is no command of the log, so that no key is kept for it.
    pub(crate) fn change(method: Method, path: String, body: Option<(&'static str, Bytes)>) -> Self {
        Self {
            method,
            path,
            body,
            repetition: Repetition::Idempotent,
            headers: HeaderMap::new(),
            wait: Duration::ZERO,
        }
    }

    pub(crate) fn write(method: Method, path: String, body: Option<(&'static str, Bytes)>, key: String) -> Self {
        Self {
            method,
            path,
            body,
            repetition: Repetition::Keyed(key),
            headers: HeaderMap::new(),
            wait: Duration::ZERO,
        }
    }

    pub(crate) fn sign_out(path: String) -> Self {
        Self {
            repetition: Repetition::SignOut,
            ..Self::change(Method::DELETE, path, None)
        }
    }

    pub(crate) fn renewal(path: String, body: Option<(&'static str, Bytes)>) -> Self {
        Self {
            repetition: Repetition::Renewal,
            ..Self::change(Method::POST, path, body)
        }
    }

    pub(crate) fn release(path: String) -> Self {
        Self {
            repetition: Repetition::Release,
            ..Self::change(Method::DELETE, path, None)
        }
    }

    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    pub(crate) fn waiting(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    pub(super) fn is_write(&self) -> bool {
        !matches!(self.repetition, Repetition::Read)
    }

    pub(super) fn key(&self) -> Option<&String> {
        match &self.repetition {
            Repetition::Keyed(key) => Some(key),
            Repetition::Read
            | Repetition::Idempotent
            | Repetition::SignOut
            | Repetition::Renewal
            | Repetition::Release => None,
        }
    }

    /// After an attempt that may have removed it, "there is no such thing" says that it did, and after a sign-out
    /// "there is no such session", and after a release "it is not held with this token". (With a
    /// key the node remembers what it did, and answers that.)
    pub(super) fn is_done_by(&self, status: StatusCode, uncertain: bool) -> bool {
        let gone = match self.repetition {
            Repetition::Idempotent if self.method == Method::DELETE => StatusCode::NOT_FOUND,
            Repetition::SignOut => StatusCode::UNAUTHORIZED,
            Repetition::Release => StatusCode::PRECONDITION_FAILED,
            Repetition::Read | Repetition::Keyed(_) | Repetition::Idempotent | Repetition::Renewal => return false,
        };
        uncertain && status == gone
    }

    /// Whether this refusal says all there is to know, also after an attempt that may have been applied.
    pub(super) fn is_settled_by(&self, status: u16) -> bool {
        match self.repetition {
            // Checked before the key is looked up, these say nothing about that attempt.
            Repetition::Keyed(_) => !matches!(status, 400 | 401 | 405 | 413 | 415),
            Repetition::Renewal => matches!(status, 404 | 412),
            _ => false,
        }
    }
}
