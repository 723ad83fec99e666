//! What the words of the contract may hold, as JSON Schema: `#[schemars(with = "schema::Name")]` on a
//! field says that it is one of them. Nothing here has values; the bodies keep plain strings.
//!
//! A pattern can say which characters, but neither how many bytes nor which normalization form: the
//! formats `quorate-…` name the rest, which the descriptions give in words.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

macro_rules! words {
    ($($(#[doc = $doc:literal])+ $name:ident $schema:tt)+) => {
        $(
            $(#[doc = $doc])+
            #[derive(Debug)]
            pub enum $name {}

            impl JsonSchema for $name {
                fn schema_name() -> Cow<'static, str> {
                    stringify!($name).into()
                }

                fn json_schema(_: &mut SchemaGenerator) -> Schema {
                    let mut schema = json_schema!($schema);
                    let description = [$($doc),+].map(str::trim).join(" ");
                    schema.insert("description".to_owned(), description.into());
                    schema
                }
            }
        )+
    };
}

/// Everything but white space, control characters and `/`.
const NAME_PATTERN: &str = r"^[^\u0000-\u0020\u007f-\u00a0/\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+$";
/// Everything but control characters.
const LABEL_PATTERN: &str = r"^[^\u0000-\u001f\u007f-\u009f]*$";
/// Numbers are exact in all languages below 2^53.
pub const NUMBER_MAX: u64 = (1 << 53) - 1;

words! {
    /// A name: 1 to 128 bytes of UTF-8 in normalization form C, without white space, control
    /// characters and `/`.
    Name {
        "type": "string", "minLength": 1, "maxLength": 128, "pattern": NAME_PATTERN,
        "format": "quorate-name", "examples": ["alice"]
    }
    /// A kind of message: a name of at most 64 bytes. Usual ones are `text`, `action`, `system`
    /// and `notice`.
    Kind {
        "type": "string", "minLength": 1, "maxLength": 64, "pattern": NAME_PATTERN,
        "format": "quorate-kind", "examples": ["text"]
    }
    /// The text of a message: up to 64 KiB of UTF-8.
    Text { "type": "string", "maxLength": 65536, "format": "quorate-text", "examples": ["hello, everyone"] }
    /// The sender's own id of a message, 1 to 128 bytes: it makes sending safe to repeat.
    ClientId {
        "type": "string", "minLength": 1, "maxLength": 128, "format": "quorate-client-id", "examples": ["c-17"]
    }
    /// The client's own id of a frame, 1 to 128 visible ASCII characters: it comes back with the answer.
    FrameId {
        "type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[!-~]+$", "examples": ["17"]
    }
    /// As the header `Idempotency-Key`: 1 to 128 visible ASCII characters.
    FrameKey {
        "type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[!-~]+$", "examples": ["order-17"]
    }
    /// Up to 256 bytes without control characters.
    DisplayName {
        "type": "string", "minLength": 1, "maxLength": 256, "pattern": LABEL_PATTERN,
        "format": "quorate-display-name", "examples": ["Alice L."]
    }
    /// Up to 254 bytes: something on both sides of an `@`, without white space.
    Email {
        "type": "string", "minLength": 3, "maxLength": 254, "pattern": "^[^\\s]+@[^\\s@]+$",
        "format": "quorate-email", "examples": ["alice@example.org"]
    }
    /// 1 to 1024 bytes. It is hashed before anything is written, and never given again.
    Password {
        "type": "string", "minLength": 1, "maxLength": 1024, "format": "quorate-password",
        "examples": ["correct horse battery staple"]
    }
    /// Up to 1024 bytes without control characters.
    Title {
        "type": "string", "maxLength": 1024, "pattern": LABEL_PATTERN, "format": "quorate-title",
        "examples": ["The lobby"]
    }
    /// A time in UTC with milliseconds, as RFC 3339 writes it.
    Time { "type": "string", "format": "date-time", "examples": ["2026-01-31T12:00:00.000Z"] }
    /// A time since 1970 as RFC 3339 writes it, with any offset.
    GivenTime { "type": "string", "format": "quorate-time", "examples": ["2026-01-31T12:00:00Z"] }
    /// A number of a message in its room: 1, 2, 3 … without a gap. 0 stands for none.
    Seq { "type": "integer", "minimum": 0, "maximum": NUMBER_MAX, "examples": [17] }
    /// A number of a message that there is to be.
    MessageSeq { "type": "integer", "minimum": 1, "maximum": NUMBER_MAX, "examples": [3] }
    /// The number of the last change, over the whole store.
    Rev { "type": "integer", "minimum": 0, "maximum": NUMBER_MAX, "examples": [42] }
    /// What a session is for: a label of 1 to 128 bytes without control characters.
    Device {
        "type": "string", "minLength": 1, "maxLength": 128, "pattern": LABEL_PATTERN, "format": "quorate-device",
        "examples": ["phone"]
    }
    /// Who wants a lock: a label for people, 1 to 128 bytes without control characters.
    LockOwner {
        "type": "string", "minLength": 1, "maxLength": 128, "pattern": LABEL_PATTERN, "format": "quorate-owner",
        "examples": ["worker-7"]
    }
    /// Milliseconds for which a lock is held without a renewal, counted from the grant.
    LockTtl { "type": "integer", "minimum": 100, "maximum": 3_600_000, "examples": [10_000] }
    /// Milliseconds to wait for a lock; 0: now or never.
    LockWait { "type": "integer", "minimum": 0, "maximum": 3_600_000, "default": 0, "examples": [30_000] }
    /// A fencing token: it grows with every grant, for ever.
    Token { "type": "integer", "minimum": 0, "maximum": NUMBER_MAX, "examples": [17_592_186_044_458_u64] }
    /// What can be asked for: `shared` is refused until it is built.
    LockModeAsked { "type": "string", "enum": ["exclusive"], "default": "exclusive" }
    /// A node's id.
    NodeId { "type": "integer", "minimum": 1, "maximum": NUMBER_MAX, "examples": [4] }
    /// `http://host:port`
    ClientUrl {
        "type": "string", "pattern": "^http://[^/]+:[0-9]{1,5}$", "format": "quorate-client-url",
        "examples": ["http://127.0.0.1:7104"]
    }
    /// `host:port`
    PeerAddr {
        "type": "string", "pattern": "^[^/]+:[0-9]{1,5}$", "format": "quorate-peer-addr",
        "examples": ["127.0.0.1:7204"]
    }
}

/// Any JSON, but its numbers stay below 2^53.
#[derive(Debug)]
pub enum AnyValue {}

impl JsonSchema for AnyValue {
    fn schema_name() -> Cow<'static, str> {
        "AnyValue".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let inner = generator.subschema_for::<Self>();
        json_schema!({
            "description": "Any JSON whose numbers lie between -2^53 and 2^53.",
            "type": ["null", "boolean", "number", "string", "array", "object"],
            "minimum": -(NUMBER_MAX as i64),
            "maximum": NUMBER_MAX,
            "items": inner,
            "additionalProperties": inner,
        })
    }
}

/// What a holder of a lock says of himself.
#[derive(Debug)]
pub enum LockData {}

impl JsonSchema for LockData {
    fn schema_name() -> Cow<'static, str> {
        "LockData".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let inner = generator.subschema_for::<AnyValue>();
        json_schema!({
            "description": "Any JSON but null, at most 4 KiB as compact JSON, 64 levels deep.",
            "type": ["boolean", "number", "string", "array", "object"],
            "minimum": -(NUMBER_MAX as i64),
            "maximum": NUMBER_MAX,
            "items": inner,
            "additionalProperties": inner,
            "examples": [{"host": "a.example.org"}],
        })
    }
}

/// An object of the caller's own.
#[derive(Debug)]
pub enum Attributes {}

impl JsonSchema for Attributes {
    fn schema_name() -> Cow<'static, str> {
        "Attributes".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let inner = generator.subschema_for::<AnyValue>();
        json_schema!({
            "description": "An object of the caller's own: at most 16 KiB as compact JSON, 64 levels deep.",
            "type": "object",
            "additionalProperties": inner,
            "examples": [{"topic": "greetings"}],
        })
    }
}
