//! Why a socket ends.

use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::error::ProtocolError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The client has closed it, or is gone.
    Gone,
    /// The node goes down.
    ShuttingDown,
    /// The session with which it was opened has ended.
    Revoked,
    /// The client does not take its answers.
    Slow,
    /// The client does not answer pings.
    Silent,
    /// A frame does not go on.
    Dripping,
    TooLarge,
    /// Text that is not UTF-8.
    Garbled,
    /// What is no WebSocket.
    Broken,
    /// There is no room for a large frame.
    Overloaded,
}

impl End {
    pub(super) fn of(error: &Error) -> Self {
        match error {
            Error::Capacity(_) => Self::TooLarge,
            Error::Utf8(_) => Self::Garbled,
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Self::Gone,
            Error::Protocol(_) => Self::Broken,
            _ => Self::Gone,
        }
    }

    /// The close code and its reason; none where nobody would hear it. 4000 and above are this contract's own, and
    /// end with the status that HTTP has for it.
    pub(super) fn last_words(self) -> Option<(u16, &'static str)> {
        Some(match self {
            Self::Gone => return None,
            Self::ShuttingDown => (1001, "shutting_down"),
            Self::Broken => (1002, "bad_request"),
            Self::Garbled => (1007, "bad_request"),
            Self::TooLarge => (1009, "too_large"),
            Self::Overloaded => (1013, "overloaded"),
            Self::Revoked => (4401, "unauthenticated"),
            Self::Dripping | Self::Silent => (4408, "timeout"),
            Self::Slow => (4429, "slow_consumer"),
        })
    }

    /// Whether requests at work are still answered: not where nobody takes the answers.
    pub(super) fn waits_for_answers(self) -> bool {
        !matches!(self, Self::Gone | Self::Slow | Self::Silent)
    }

    /// As metrics name it; none for what is nobody's fault.
    pub(super) fn label(self) -> Option<&'static str> {
        match self {
            Self::Gone | Self::ShuttingDown | Self::Revoked => None,
            Self::Slow => Some("slow_socket"),
            Self::Silent => Some("silent_socket"),
            Self::Dripping => Some("frame_read_timeout"),
            Self::TooLarge => Some("frame_too_large"),
            Self::Garbled | Self::Broken => Some("broken_frame"),
            Self::Overloaded => Some("frame_bytes"),
        }
    }
}
