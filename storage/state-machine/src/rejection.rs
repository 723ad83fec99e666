//! What apply and query can say instead of yes.

use bincode::{Decode, Encode};

/// A refusal is a value: it is decided by the log, the same on every replica, and changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, thiserror::Error)]
#[error("{detail}")]
pub struct Rejection {
    pub code: Code,
    /// For people: a full sentence fragment that names what was refused.
    pub detail: String,
}

/// The part of a refusal that programs branch on. Tags are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Code {
    /// 401: the caller is not (or no longer) a user.
    Unauthenticated,
    /// 422: the key was used with another request.
    IdempotencyMismatch,
    /// 404
    NotFound,
    /// 403
    Forbidden,
    /// 403: the room is for members.
    NotAMember,
    /// 403
    Banned,
    /// 412: If-Match or If-None-Match.
    PreconditionFailed,
    /// 412: If-Lock names a lock that is not held with that token.
    LockLost,
    /// 409
    AlreadyExists,
    /// 409
    LockHeld,
    /// 409: for example, the last owner may not leave.
    Conflict,
    /// 422: well-formed, but refers to what does not exist or does not fit.
    Invalid,
    /// 400: wrong in itself; the API refuses these before they are proposed, apply refuses them again.
    BadRequest,
    /// 413
    TooLarge,
    /// 429: the table of idempotency keys is full.
    RateLimited,
    /// 410: a position of another epoch, or older than what is kept.
    PositionExpired,
}

impl Rejection {
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
        }
    }
}

/// The node cannot go on: its data is damaged or its disk fails. Never a caller's fault.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    #[error("corrupt state: {0}")]
    Corrupt(String),
    #[error("failed to read state: {0}")]
    Io(String),
}

impl From<crate::codec::DecodeError> for Fatal {
    fn from(error: crate::codec::DecodeError) -> Self {
        Fatal::Corrupt(error.to_string())
    }
}

/// Why a command or a query went no further: the two kinds of no, kept apart so that neither is
/// taken for the other.
#[derive(Debug)]
pub(crate) enum Stop {
    Refused(Rejection),
    Fatal(Fatal),
}

impl From<Rejection> for Stop {
    fn from(rejection: Rejection) -> Self {
        Stop::Refused(rejection)
    }
}

impl From<Fatal> for Stop {
    fn from(fatal: Fatal) -> Self {
        Stop::Fatal(fatal)
    }
}

impl Stop {
    pub(crate) fn refused(code: Code, detail: impl Into<String>) -> Self {
        Stop::Refused(Rejection::new(code, detail))
    }
}

/// A refusal as a value beside the success; only a fatal error remains an error.
pub(crate) fn settle<T>(result: Result<T, Stop>) -> Result<Result<T, Rejection>, Fatal> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(Stop::Refused(rejection)) => Ok(Err(rejection)),
        Err(Stop::Fatal(fatal)) => Err(fatal),
    }
}
