//! Errors as the contract writes them: RFC 9457 with `code`, `request_id`, `retryable`, `outcome`.

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use http::header::{self, HeaderName, HeaderValue};
use quorate_client::wire::socket::SocketProblem;
use quorate_client::wire::{LockHolder, LockWaiter};
use quorate_state_machine::{Code, Position, Rejection};

use crate::headers::{IDEMPOTENCY_REPLAYED, X_POSITION};
use crate::replica::{AdminError, ReplicaError};

/// What programs branch on. The order is that of the contract's checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    NoRoute,
    MethodNotAllowed,
    UnsupportedMediaType,
    TooLarge,
    BadRequest,
    /// 408: the body did not arrive in time.
    BodyTimeout,
    /// What apply or query refused.
    Refused(Code),
    Overloaded,
    NoLeader,
    NotReady,
    ShuttingDown,
    CommitUnknown,
    DiskFull,
    /// A defect of this node.
    Internal,
}

impl Kind {
    /// All of them, in the same order.
    pub(crate) const ALL: [Kind; 29] = [
        Kind::NoRoute,
        Kind::MethodNotAllowed,
        Kind::UnsupportedMediaType,
        Kind::TooLarge,
        Kind::BadRequest,
        Kind::BodyTimeout,
        Kind::Refused(Code::Unauthenticated),
        Kind::Refused(Code::IdempotencyMismatch),
        Kind::Refused(Code::NotFound),
        Kind::Refused(Code::Forbidden),
        Kind::Refused(Code::NotAMember),
        Kind::Refused(Code::Banned),
        Kind::Refused(Code::PreconditionFailed),
        Kind::Refused(Code::LockLost),
        Kind::Refused(Code::AlreadyExists),
        Kind::Refused(Code::LockHeld),
        Kind::Refused(Code::Conflict),
        Kind::Refused(Code::Invalid),
        Kind::Refused(Code::BadRequest),
        Kind::Refused(Code::TooLarge),
        Kind::Refused(Code::RateLimited),
        Kind::Refused(Code::PositionExpired),
        Kind::Overloaded,
        Kind::NoLeader,
        Kind::NotReady,
        Kind::ShuttingDown,
        Kind::CommitUnknown,
        Kind::DiskFull,
        Kind::Internal,
    ];

    pub(crate) fn status(self) -> StatusCode {
        self.row().0
    }

    pub(crate) fn code(self) -> &'static str {
        self.row().1
    }

    pub(crate) fn title(self) -> &'static str {
        self.row().2
    }

    /// Status, `code`, title, and whether the same request may succeed later.
    fn row(self) -> (StatusCode, &'static str, &'static str, bool) {
        use StatusCode as S;
        match self {
            Kind::NoRoute => (S::NOT_FOUND, "not_found", "Not found", false),
            Kind::MethodNotAllowed => (S::METHOD_NOT_ALLOWED, "method_not_allowed", "Method not allowed", false),
            Kind::UnsupportedMediaType => (
                S::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "Unsupported media type",
                false,
            ),
            Kind::TooLarge => (S::PAYLOAD_TOO_LARGE, "too_large", "Too large", false),
            Kind::BadRequest => (S::BAD_REQUEST, "bad_request", "Bad request", false),
            Kind::BodyTimeout => (
                S::REQUEST_TIMEOUT,
                "bad_request",
                "The body did not arrive in time",
                true,
            ),
            Kind::Overloaded => (S::TOO_MANY_REQUESTS, "overloaded", "Overloaded", true),
            Kind::NoLeader => (S::SERVICE_UNAVAILABLE, "no_leader", "No leader", true),
            Kind::NotReady => (S::SERVICE_UNAVAILABLE, "not_ready", "Not ready", true),
            Kind::ShuttingDown => (S::SERVICE_UNAVAILABLE, "shutting_down", "Shutting down", true),
            Kind::CommitUnknown => (S::GATEWAY_TIMEOUT, "commit_unknown", "The outcome is not known", true),
            Kind::DiskFull => (S::INSUFFICIENT_STORAGE, "disk_full", "Disk full", true),
            Kind::Internal => (S::INTERNAL_SERVER_ERROR, "internal", "Internal error", false),
            Kind::Refused(code) => refusal(code),
        }
    }
}

impl From<Code> for Kind {
    fn from(code: Code) -> Self {
        Kind::Refused(code)
    }
}

fn refusal(code: Code) -> (StatusCode, &'static str, &'static str, bool) {
    use StatusCode as S;
    match code {
        Code::Unauthenticated => (S::UNAUTHORIZED, "unauthenticated", "Unauthenticated", false),
        Code::IdempotencyMismatch => (
            S::UNPROCESSABLE_ENTITY,
            "idempotency_mismatch",
            "The key was used with another request",
            false,
        ),
        Code::NotFound => (S::NOT_FOUND, "not_found", "Not found", false),
        Code::Forbidden => (S::FORBIDDEN, "forbidden", "Forbidden", false),
        Code::NotAMember => (S::FORBIDDEN, "not_a_member", "Not a member", false),
        Code::Banned => (S::FORBIDDEN, "banned", "Banned", false),
        Code::PreconditionFailed => (
            S::PRECONDITION_FAILED,
            "precondition_failed",
            "Precondition failed",
            false,
        ),
        Code::LockLost => (S::PRECONDITION_FAILED, "lock_lost", "Lock lost", false),
        Code::AlreadyExists => (S::CONFLICT, "already_exists", "Already exists", false),
        Code::LockHeld => (S::CONFLICT, "lock_held", "Lock held", true),
        Code::Conflict => (S::CONFLICT, "conflict", "Conflict", false),
        Code::Invalid => (S::UNPROCESSABLE_ENTITY, "invalid", "Invalid", false),
        Code::BadRequest => (S::BAD_REQUEST, "bad_request", "Bad request", false),
        Code::TooLarge => (S::PAYLOAD_TOO_LARGE, "too_large", "Too large", false),
        Code::RateLimited => (S::TOO_MANY_REQUESTS, "rate_limited", "Rate limited", true),
        Code::PositionExpired => (S::GONE, "position_expired", "Position expired", false),
    }
}

/// An answer that is not the one asked for. Boxed where it travels: it is the rare case.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    kind: Kind,
    detail: String,
    /// 307: no body, only `Location`.
    redirect: bool,
    outcome_unknown: bool,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// With 410: the oldest position that this node can go on from.
    oldest: Option<String>,
    /// With 409 `lock_held`: who is in the way.
    held: Option<Box<HeldBy>>,
}

/// Who holds a lock, and who waits for it.
#[derive(Debug, Clone, serde::Serialize, schemars::JsonSchema)]
pub(crate) struct HeldBy {
    pub(crate) holders: Vec<LockHolder>,
    pub(crate) queue: Vec<LockWaiter>,
}

/// A detail may quote what the caller sent; longer ones are cut, so that an error stays small.
const DETAIL_BYTES_MAX: usize = 512;

/// Seconds. Failover takes a fraction of one, and a queue drains as fast.
const RETRY_AFTER_S: u64 = 1;

impl Problem {
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let mut detail: String = detail.into();
        if detail.len() > DETAIL_BYTES_MAX {
            detail.truncate(detail.floor_char_boundary(DETAIL_BYTES_MAX));
            detail.push('…');
        }
        let status = kind.row().0;
        let mut headers = Vec::new();
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            headers.push((header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S)));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.push((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
        }
        let outcome_unknown = kind == Kind::CommitUnknown;
        Self {
            kind,
            detail,
            redirect: false,
            outcome_unknown,
            headers,
            oldest: None,
            held: None,
        }
    }

    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(Kind::BadRequest, detail)
    }

    pub(crate) fn too_large(detail: impl Into<String>) -> Self {
        Self::new(Kind::TooLarge, detail)
    }

    pub(crate) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(Kind::Refused(Code::Forbidden), detail)
    }

    pub(crate) fn unauthenticated(detail: impl Into<String>) -> Self {
        Self::new(Kind::Refused(Code::Unauthenticated), detail)
    }

    pub(crate) fn refused(rejection: Rejection) -> Self {
        Self::new(Kind::Refused(rejection.code), rejection.detail)
    }

    /// A defect of this node. A write may have been applied by then.
    pub(crate) fn internal(detail: impl Into<String>, outcome_unknown: bool) -> Self {
        Self {
            outcome_unknown,
            ..Self::new(Kind::Internal, detail)
        }
    }

    /// Why the replica did not answer. A read has no outcome to be unknown: it is asked again.
    pub(crate) fn from_replica(error: ReplicaError, is_read: bool, path_and_query: &str) -> Self {
        let detail = error.to_string();
        match error {
            ReplicaError::Redirect { client_url } => {
                let location = format!("{}{path_and_query}", client_url.trim_end_matches('/'));
                match HeaderValue::try_from(location) {
                    Ok(location) => Self {
                        redirect: true,
                        ..Self::new(Kind::NotReady, detail)
                    }
                    .with_header(header::LOCATION, location),
                    Err(_) => Self::new(Kind::NoLeader, "the leader's address cannot be written in a header"),
                }
            }
            ReplicaError::NoLeader => Self::new(Kind::NoLeader, detail),
            ReplicaError::NotReady(_) => Self::new(Kind::NotReady, detail),
            ReplicaError::ShuttingDown => Self::new(Kind::ShuttingDown, detail),
            ReplicaError::Overloaded(_) => Self::new(Kind::Overloaded, detail),
            ReplicaError::DiskFull => Self::new(Kind::DiskFull, detail),
            ReplicaError::PositionExpired => Self::new(Kind::Refused(Code::PositionExpired), detail),
            ReplicaError::CommitUnknown(_) if is_read => Self::new(Kind::NotReady, detail),
            ReplicaError::CommitUnknown(_) => Self::new(Kind::CommitUnknown, detail),
        }
    }

    /// Why a change of the cluster was not begun, or a question about it not answered.
    pub(crate) fn from_admin(error: AdminError, is_read: bool, path_and_query: &str) -> Self {
        let (code, detail) = match error {
            AdminError::NotFound(detail) => (Code::NotFound, detail),
            AdminError::AlreadyExists(detail) => (Code::AlreadyExists, detail),
            AdminError::Conflict(detail) => (Code::Conflict, detail),
            AdminError::Invalid(detail) => (Code::Invalid, detail),
            AdminError::Replica(error) => return Self::from_replica(error, is_read, path_and_query),
        };
        Self::new(Kind::Refused(code), detail)
    }

    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(crate) fn with_oldest(mut self, oldest: String) -> Self {
        self.oldest = Some(oldest);
        self
    }

    pub(crate) fn with_held_by(mut self, held: HeldBy) -> Self {
        self.held = Some(Box::new(held));
        self
    }

    /// The write was proposed, and this is no answer to it.
    pub(crate) fn with_outcome_unknown(mut self) -> Self {
        self.outcome_unknown = true;
        self
    }

    /// The write may have been applied.
    pub(crate) fn is_outcome_unknown(&self) -> bool {
        self.outcome_unknown
    }

    /// The state in which it was refused, where a header says it.
    pub(crate) fn position(&self) -> Option<Position> {
        let header = self.headers.iter().find(|(name, _)| name == X_POSITION)?;
        header.1.to_str().ok()?.parse().ok()
    }

    pub(crate) fn is_lock_held(&self) -> bool {
        self.kind == Kind::Refused(Code::LockHeld)
    }

    #[cfg(test)]
    pub(crate) fn code(&self) -> &'static str {
        self.kind.row().1
    }

    pub(crate) fn is_position_expired(&self) -> bool {
        self.kind == Kind::Refused(Code::PositionExpired)
    }

    /// As it goes out, in whatever it is wrapped.
    fn written(&mut self, request_id: &str) -> quorate_client::wire::Problem {
        let (status, code, title, retryable) = self.kind.row();
        quorate_client::wire::Problem {
            type_: format!("urn:quorate:problem:{code}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: std::mem::take(&mut self.detail),
            code: code.to_owned(),
            request_id: request_id.to_owned(),
            retryable,
            outcome: if self.outcome_unknown { "unknown" } else { "not_applied" }.to_owned(),
        }
    }

    /// On a socket, where what headers say stands beside the problem.
    pub(crate) fn into_answer(mut self, request_id: &str) -> Said {
        let header = |wanted: HeaderName| self.headers.iter().find(|(name, _)| *name == wanted);
        let retry_after_s: Option<u64> =
            header(header::RETRY_AFTER).and_then(|(_, value)| value.to_str().ok()?.parse().ok());
        Said {
            position: self.position().map(|position| position.to_string()),
            replayed: header(IDEMPOTENCY_REPLAYED).is_some(),
            problem: SocketProblem {
                problem: self.written(request_id),
                retry_after_ms: retry_after_s.map(|seconds| seconds * 1000),
            },
        }
    }

    pub(crate) fn into_response(mut self, request_id: &str) -> Response {
        let status = self.kind.status();
        let mut response = if self.redirect {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
            response
        } else {
            let body = Written {
                problem: self.written(request_id),
                oldest: self.oldest,
                held: self.held,
            };
            let body = serde_json::to_vec(&body).expect("a problem holds only strings and numbers");
            let mut response = Response::new(Body::from(body));
            *response.status_mut() = status;
            response.headers_mut().insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/problem+json"),
            );
            response
        };
        if self.kind == Kind::BodyTimeout {
            // The rest of the body may still come; nothing more can be read on this connection.
            response
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if !self.redirect {
            response
                .headers_mut()
                .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        for (name, value) in self.headers {
            if !(self.redirect && name == header::RETRY_AFTER) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

/// What a socket says of a problem.
pub(crate) struct Said {
    pub(crate) problem: SocketProblem,
    /// The state in which it was refused.
    pub(crate) position: Option<String>,
    pub(crate) replayed: bool,
}

/// As it goes out.
#[derive(serde::Serialize, schemars::JsonSchema)]
#[schemars(rename = "Problem")]
pub(crate) struct Written {
    #[serde(flatten)]
    problem: quorate_client::wire::Problem,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest: Option<String>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    held: Option<Box<HeldBy>>,
}
