//! What parameters and headers hold, each once: an operation names them.

use http::header::{self, HeaderName};
use quorate_client::wire::schema::{NUMBER_MAX, Name, NodeId, Seq};
use quorate_state_machine::limits::{KEY_BYTES_MAX, LIMIT_DEFAULT, LIMIT_MAX};
use serde_json::{Value, json};

use super::schemas::Schemas;
use crate::config::REQUEST_TIMEOUT_MAX_MS;
use crate::headers::{
    IDEMPOTENCY_KEY, IDEMPOTENCY_REPLAYED, IF_LOCK, LAST_EVENT_ID, REQUEST_TIMEOUT_MS, X_LEADER, X_LEVEL,
    X_MIN_POSITION, X_NODE, X_POSITION, X_REQUEST_ID, X_TERM, X_USER,
};
use crate::operation::Operation;
use crate::rate_limit::{RATE_LIMIT, RATE_LIMIT_POLICY};

/// A segment of the path: `{room}` is always a room.
///
/// # Panics
/// When the segment has no meaning here yet.
pub(super) fn in_path(name: &str, schemas: &mut Schemas) -> Value {
    let (schema, about) = match name {
        "user" => (schemas.one::<Name>(), "The user's name, percent-encoded."),
        "room" => (schemas.one::<Name>(), "The room's name, percent-encoded."),
        "seq" => (schemas.one::<Seq>(), "The message's number in its room."),
        "lock" => (schemas.one::<Name>(), "The lock's name, percent-encoded."),
        "id" => (schemas.one::<NodeId>(), "The node's id."),
        other => panic!("openapi::parameters::in_path does not know {{{other}}}"),
    };
    json!({"name": name, "in": "path", "required": true, "description": about, "schema": schema})
}

/// A query parameter.
///
/// # Panics
/// When the name has no meaning here yet.
pub(super) fn in_query(name: &str) -> Value {
    // Whatever lies beyond the end is as far beyond as any other number.
    let seq = || json!({"type": "integer", "minimum": 0, "examples": [17]});
    let flag = || json!({"type": "string", "enum": ["true", "false"], "default": "false"});
    let (schema, about) = match name {
        "level" => (
            json!({"type": "string", "enum": ["linearizable", "local"], "default": "linearizable"}),
            "`linearizable` reflects everything that was acknowledged before the request began; `local` answers from \
             what the node has, also without a leader.",
        ),
        "redirect" => (
            flag(),
            "Where a follower would forward the request to the leader: answer 307 with the leader's URL instead.",
        ),
        "limit" => (
            json!({"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT}),
            "At most so many.",
        ),
        "cursor" => (
            json!({"type": "string", "minLength": 3, "pattern": "^[a-z]([0-9A-Fa-f]{2})+$", "format": "quorate-cursor"}),
            "`next_cursor` of the page before. Opaque; belongs to its list.",
        ),
        "after" => (seq(), "The messages behind this seq."),
        "before" => (seq(), "The messages up to the one before this seq."),
        "around" => (seq(), "The messages with this seq in the middle."),
        "at" => (
            json!({"type": "string", "format": "quorate-time", "examples": ["2026-01-31T12:00:00Z"]}),
            "From the first message by which some message was sent at or after this time.",
        ),
        "token" => (
            json!({"type": "integer", "minimum": 0, "maximum": NUMBER_MAX}),
            "The fencing token of the grant.",
        ),
        "verbose" => (
            json!({"type": "string", "enum": ["", "true", "false"]}),
            "Say more than that it is so.",
        ),
        other => panic!("openapi::parameters::in_query does not know {other}"),
    };
    let mut parameter = json!({"name": name, "in": "query", "description": about, "schema": schema});
    if name == "token" {
        parameter["required"] = true.into();
    }
    if name == "verbose" {
        parameter["allowEmptyValue"] = true.into();
    }
    parameter
}

/// A request header.
///
/// # Panics
/// When the header has no meaning here yet.
pub(super) fn in_header(name: &HeaderName, operation: &Operation) -> Value {
    let position = || json!({"type": "string", "pattern": "^[0-9]+(\\.[0-9]+){2,3}$", "format": "quorate-position"});
    let visible = json!({"type": "string", "minLength": 1, "maxLength": KEY_BYTES_MAX, "pattern": "^[!-~]+$"});
    let (written, schema, about) = match name {
        name if *name == X_REQUEST_ID => (
            "X-Request-Id",
            json!({"type": "string"}),
            "1 to 128 visible ASCII characters; comes back in the answer and stands in the node's log. Absent or \
             invalid: the node makes one.",
        ),
        name if *name == X_USER => (
            "X-Quorate-User",
            json!({"type": "string", "pattern": "^[!-~]+$", "format": "quorate-encoded-name"}),
            "Act as this user, whose name is percent-encoded. Without it, and without a session, root asks.",
        ),
        name if *name == REQUEST_TIMEOUT_MS => (
            "Request-Timeout-Ms",
            json!({"type": "integer", "minimum": 1, "maximum": REQUEST_TIMEOUT_MAX_MS, "default": 5000}),
            "How long the node may work on it.",
        ),
        name if *name == X_MIN_POSITION => (
            "X-Quorate-Min-Position",
            position(),
            "Wait until the node reflects this position, which a node gave.",
        ),
        name if *name == LAST_EVENT_ID => (
            "Last-Event-ID",
            position(),
            "Go on behind the event with this id. Wins over `after`.",
        ),
        name if *name == IDEMPOTENCY_KEY => (
            "Idempotency-Key",
            visible,
            "Unique per caller. What was decided the first time is answered again for 24 hours.",
        ),
        name if *name == IF_LOCK => (
            "If-Lock",
            json!({"type": "string", "pattern": "^[!-:<-~]+; *token=[0-9]{1,19}$", "format": "quorate-if-lock"}),
            "`NAME;token=N`: only if this lock is held with exactly this token. The name is percent-encoded.",
        ),
        name if *name == header::IF_MATCH => (
            "If-Match",
            json!({"type": "string", "pattern": "^\"[0-9]+\"$"}),
            "Only if the entity's revision is this one.",
        ),
        name if *name == header::IF_NONE_MATCH && operation.method == http::Method::GET => (
            "If-None-Match",
            json!({"type": "string"}),
            "Tags that the caller has: 304 if the entity still has one of them.",
        ),
        name if *name == header::IF_NONE_MATCH => (
            "If-None-Match",
            json!({"type": "string", "enum": ["*"]}),
            "Only if the entity does not exist.",
        ),
        other => panic!("openapi::parameters::in_header does not know {other}"),
    };
    json!({"name": written, "in": "header", "description": about, "schema": schema})
}

/// A response header, and how it is written.
///
/// # Panics
/// When the header has no meaning here yet.
pub(super) fn of_answer(name: &HeaderName) -> (&'static str, Value) {
    let (written, schema, about) = match name {
        name if *name == X_REQUEST_ID => ("X-Request-Id", json!({"type": "string"}), "The caller's, or a new one."),
        name if *name == X_NODE => ("X-Quorate-Node", json!({"type": "integer"}), "The node that answers."),
        name if *name == X_LEADER => (
            "X-Quorate-Leader",
            json!({"type": "string", "pattern": "^[0-9]*$"}),
            "The leader's id as this node knows it; empty if it knows none.",
        ),
        name if *name == X_TERM => ("X-Quorate-Term", json!({"type": "integer"}), "The Raft term."),
        name if *name == X_POSITION => (
            "X-Quorate-Position",
            json!({"type": "string"}),
            "The state that the answer reflects. Opaque.",
        ),
        name if *name == X_LEVEL => (
            "X-Quorate-Level",
            json!({"type": "string", "enum": ["linearizable", "local"]}),
            "The level served.",
        ),
        name if *name == header::ETAG => (
            "ETag",
            json!({"type": "string", "pattern": "^\"[0-9]+\"$"}),
            "The entity's revision, quoted.",
        ),
        name if *name == header::LOCATION => (
            "Location",
            json!({"type": "string"}),
            "Of what was created, or where to go.",
        ),
        name if *name == header::LINK => (
            "Link",
            json!({"type": "string"}),
            "`<…>; rel=\"next\"`: the next page, if there is one.",
        ),
        name if *name == header::RETRY_AFTER => ("Retry-After", json!({"type": "integer"}), "Seconds."),
        name if *name == header::WWW_AUTHENTICATE => ("WWW-Authenticate", json!({"type": "string"}), "`Bearer`"),
        name if *name == IDEMPOTENCY_REPLAYED => (
            "Idempotency-Replayed",
            json!({"type": "string", "enum": ["true"]}),
            "There if this was decided before.",
        ),
        name if *name == RATE_LIMIT_POLICY => (
            "RateLimit-Policy",
            json!({"type": "string"}),
            "Where the node limits how often its users ask: the burst, and the seconds in which it is full again \
             (draft-ietf-httpapi-ratelimit-headers).",
        ),
        name if *name == RATE_LIMIT => (
            "RateLimit",
            json!({"type": "string"}),
            "The same: how many more may come at once, and the seconds until all may.",
        ),
        other => panic!("openapi::parameters::of_answer does not know {other}"),
    };
    (written, json!({"description": about, "schema": schema}))
}
