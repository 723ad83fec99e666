//! What a call can end with instead of its answer. Callers branch on exactly these.

use crate::wire::Problem;

/// Why a call has no answer. Each says whether a write may have happened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The store said no, and said it for good: nothing was applied. Retrying changes nothing.
    #[error("{}", refusal(.0))]
    Refused(Box<Problem>),
    /// A write that may have been applied or not. Repeating it with this key is safe: it happens
    /// once, and is answered as the first time. Without a key it is one that asks for the same
    /// each time, as the changes of the cluster do.
    #[error("the outcome is not known: {detail} ({})", repeat(key.as_deref()))]
    OutcomeUnknown { key: Option<String>, detail: String },
    /// No node could serve the call within the deadline; certainly nothing was applied.
    #[error("no node could serve the request: {detail}")]
    Unavailable {
        detail: String,
        /// The last node's own words, where one answered.
        problem: Option<Box<Problem>>,
    },
    /// An answer that the contract does not know: perhaps no Quorate node listens there.
    #[error("not an answer of a Quorate node: {detail}")]
    BadResponse {
        detail: String,
        /// It answered a write, which may have been applied.
        write: bool,
    },
    /// The call or the options were wrong in themselves; nothing was sent.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    /// Whether a write that ended like this may have been applied.
    pub fn outcome_unknown(&self) -> bool {
        match self {
            Error::OutcomeUnknown { .. } => true,
            Error::BadResponse { write, .. } => *write,
            Error::Refused(_) | Error::Unavailable { .. } | Error::Invalid(_) => false,
        }
    }

    /// The `code` of a refusal, such as `not_found`.
    pub fn code(&self) -> Option<&str> {
        match self {
            Error::Refused(problem) => Some(&problem.code),
            _ => None,
        }
    }
}

fn repeat(key: Option<&str>) -> String {
    match key {
        Some(key) => format!("safe to repeat with the idempotency key {key}"),
        None => "safe to repeat".to_owned(),
    }
}

/// The detail, or the title where there is no detail.
fn refusal(problem: &Problem) -> String {
    let what = if problem.detail.is_empty() {
        &problem.title
    } else {
        &problem.detail
    };
    format!("{what} ({} {})", problem.status, problem.code)
}
