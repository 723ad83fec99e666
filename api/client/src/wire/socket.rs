//! What is said over a socket (`GET /v1/ws`): one JSON object in each text frame. A node reads requests as strictly
//! as bodies; its answers may gain fields.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BatchMessage, NewMessage, Problem, Sent, SentBatch, schema};

/// The subprotocol of this version.
pub const SUBPROTOCOL: &str = "quorate.v1";
/// Before a token that is offered as a subprotocol, where no header can be sent: in a browser.
pub const BEARER_SUBPROTOCOL: &str = "bearer.";

/// What a client says. `id` is its own: it comes back with the answer.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SocketRequest<'a> {
    /// As `POST /v1/rooms/{room}/messages`.
    Send {
        #[schemars(with = "schema::FrameId")]
        id: &'a str,
        #[schemars(with = "schema::Name")]
        room: &'a str,
        #[serde(flatten)]
        message: &'a NewMessage,
        #[serde(flatten)]
        conditions: SendConditions<'a>,
    },
    /// As `POST /v1/rooms/{room}/messages/batch`.
    SendBatch {
        #[schemars(with = "schema::FrameId")]
        id: &'a str,
        #[schemars(with = "schema::Name")]
        room: &'a str,
        messages: &'a [BatchMessage],
        #[serde(flatten)]
        conditions: SendConditions<'a>,
    },
    /// For those who cannot send a WebSocket's own pings.
    Ping {
        #[schemars(with = "schema::FrameId")]
        id: &'a str,
    },
}

/// What headers say of a send over HTTP.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct SendConditions<'a> {
    /// As the header `Idempotency-Key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "schema::FrameKey")]
    pub idempotency_key: Option<&'a str>,
    /// As the header `If-Lock`: `NAME;token=N`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub if_lock: Option<&'a str>,
    /// As the header `If-Match`, the bare revision.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "schema::Rev")]
    pub if_match: Option<u64>,
    /// As the header `Request-Timeout-Ms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 60_000))]
    pub timeout_ms: Option<u64>,
}

/// What a node says.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SocketAnswer {
    Hello(Hello),
    Sent {
        id: String,
        #[serde(flatten)]
        sent: Sent,
        /// The state that the answer reflects.
        position: String,
        /// It was decided before.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        replayed: bool,
    },
    SentBatch {
        id: String,
        #[serde(flatten)]
        sent: SentBatch,
        position: String,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        replayed: bool,
    },
    Pong {
        id: String,
    },
    /// Without an `id` where the frame had none that could be read.
    Error {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        problem: SocketProblem,
        /// The state in which it was refused, where one was looked at.
        #[serde(skip_serializing_if = "Option::is_none")]
        position: Option<String>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        replayed: bool,
    },
}

/// The first frame of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hello {
    pub node: u64,
    /// The leader as this node knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader: Option<u64>,
    pub term: u64,
    /// Requests at work on this socket. With so many the node reads no further until one is answered.
    pub in_flight_max: u64,
    /// Bytes of a frame.
    pub frame_bytes_max: u64,
    /// The node pings after so long a silence, and gives the socket up after another.
    pub ping_interval_ms: u64,
}

/// A problem, and in how many milliseconds it is worth to try again, where the node can say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SocketProblem {
    #[serde(flatten)]
    pub problem: Problem,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}
