//! What a frame asks, read as strictly as a body.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use quorate_client::wire::{Attributes, Batch, BatchMessage, NewMessage};
use quorate_state_machine::limits::KEY_BYTES_MAX;
use quorate_state_machine::{Command, Conditions, Idempotency, Revision, fields};
use serde::{Deserialize, Deserializer, Serialize};

use crate::config::REQUEST_TIMEOUT_MAX_MS;
use crate::problem::Problem;
use crate::sending::Outgoing;
use crate::{checks, fingerprint, headers, json, percent};

/// A frame in which nothing is wrong in itself.
#[derive(Debug)]
pub(super) struct Frame {
    /// The client's own; comes back with the answer.
    pub(super) id: String,
    pub(super) ask: Ask,
}

#[derive(Debug)]
pub(super) enum Ask {
    Ping,
    Send(Box<Send>),
}

/// A send, as HTTP says it with a path, headers and a body.
#[derive(Debug)]
pub(super) struct Send {
    pub(super) command: Command,
    pub(super) conditions: Conditions,
    pub(super) idempotency: Option<Idempotency>,
    pub(super) timeout: Option<Duration>,
}

/// Why a frame asks nothing, and its id, if it has one.
#[derive(Debug)]
pub(super) struct Unread {
    pub(super) id: Option<String>,
    pub(super) problem: Problem,
}

/// As it stands in the frame: one flat object, so that it is read in one go, with nothing put aside.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    type_: Cow<'a, str>,
    #[serde(default, deserialize_with = "present")]
    room: Option<String>,
    #[serde(default, deserialize_with = "present")]
    text: Option<String>,
    #[serde(default, deserialize_with = "present")]
    client_id: Option<String>,
    #[serde(default, deserialize_with = "present")]
    kind: Option<String>,
    #[serde(default, deserialize_with = "present")]
    reply_to: Option<u64>,
    #[serde(default, deserialize_with = "present")]
    attributes: Option<Attributes>,
    #[serde(default, deserialize_with = "messages")]
    messages: Option<Vec<BatchMessage>>,
    #[serde(default, deserialize_with = "present")]
    idempotency_key: Option<String>,
    #[serde(default, deserialize_with = "present")]
    if_lock: Option<String>,
    #[serde(default, deserialize_with = "present")]
    if_match: Option<u64>,
    #[serde(default, deserialize_with = "present")]
    timeout_ms: Option<u64>,
}

/// Optional fields are absent, never null.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

fn messages<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<BatchMessage>>, D::Error> {
    json::objects(deserializer).map(Some)
}

/// What is looked at where the whole cannot be read.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Head {
    id: Option<String>,
    #[serde(rename = "type")]
    type_: Option<String>,
}

impl Head {
    fn of(text: &str) -> Self {
        json::object(text).unwrap_or_default()
    }

    /// An id that is none is not repeated.
    fn id(&self) -> Option<String> {
        self.id.clone().filter(|id| is_id(id))
    }
}

/// The id of a frame that nobody reads further.
pub(super) fn id_of(text: &str) -> Option<String> {
    Head::of(text).id()
}

const TYPES: &str = "send, send_batch and ping";

impl Frame {
    pub(super) fn read(text: &str) -> Result<Self, Unread> {
        let fields: Fields<'_> = json::object(text).map_err(|error| {
            let head = Head::of(text);
            let problem = match &head.type_ {
                // Of a type that is not built, no field is known; that is not what is wrong with it.
                Some(type_) if !matches!(type_.as_str(), "send" | "send_batch" | "ping") => unknown_type(type_),
                _ => Problem::bad_request(format!("failed to read the frame: {error}")),
            };
            Unread { id: head.id(), problem }
        })?;
        let id = fields.id.clone().into_owned();
        if !is_id(&id) {
            let problem = Problem::bad_request(format!("id has 1 to {KEY_BYTES_MAX} visible ASCII characters"));
            return Err(Unread { id: None, problem });
        }
        match fields.into_ask() {
            Ok(ask) => Ok(Self { id, ask }),
            Err(problem) => Err(Unread { id: Some(id), problem }),
        }
    }
}

fn unknown_type(type_: &str) -> Problem {
    Problem::bad_request(format!("there is no type {type_:?}: there are {TYPES}"))
}

/// As idempotency keys and request ids: it stands in the log of the node.
fn is_id(id: &str) -> bool {
    (1..=KEY_BYTES_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
}

impl Fields<'_> {
    fn into_ask(self) -> Result<Ask, Problem> {
        let has_message = self.text.is_some()
            || self.client_id.is_some()
            || self.kind.is_some()
            || self.reply_to.is_some()
            || self.attributes.is_some();
        let conditional = self.idempotency_key.is_some()
            || self.if_lock.is_some()
            || self.if_match.is_some()
            || self.timeout_ms.is_some();
        match &*self.type_ {
            "send" if self.messages.is_some() => Err(misplaced("messages", "send_batch")),
            "send" => self.into_send().map(Ask::Send),
            "send_batch" if has_message => Err(Problem::bad_request(
                "the fields of a message stand in messages in a frame of type send_batch",
            )),
            "send_batch" => self.into_batch().map(Ask::Send),
            "ping" if has_message || conditional || self.room.is_some() || self.messages.is_some() => {
                Err(Problem::bad_request("a frame of type ping has an id and nothing more"))
            }
            "ping" => Ok(Ask::Ping),
            other => Err(unknown_type(other)),
        }
    }

    fn into_send(mut self) -> Result<Box<Send>, Problem> {
        let message = NewMessage {
            text: self.text.take().ok_or_else(|| missing("text"))?,
            client_id: self.client_id.take(),
            kind: self.kind.take(),
            reply_to: self.reply_to,
            attributes: self.attributes.take(),
        };
        let canonical = self.idempotency_key.is_some().then(|| canonical(&message));
        let outgoing = Outgoing::one(message)?;
        self.finish(outgoing, "", canonical)
    }

    fn into_batch(mut self) -> Result<Box<Send>, Problem> {
        let messages = self.messages.take().ok_or_else(|| missing("messages"))?;
        let batch = Batch { messages };
        let canonical = self.idempotency_key.is_some().then(|| canonical(&batch));
        let outgoing = Outgoing::batch(batch.messages)?;
        self.finish(outgoing, "/batch", canonical)
    }

    /// The 400s of what HTTP has in headers and path.
    fn finish(self, outgoing: Outgoing, below: &str, canonical: Option<Bytes>) -> Result<Box<Send>, Problem> {
        let room = self.room.ok_or_else(|| missing("room"))?;
        let timeout = self.timeout_ms.map(|ms| {
            headers::timeout_of_ms(ms).ok_or_else(|| {
                Problem::bad_request(format!("timeout_ms is a number from 1 to {REQUEST_TIMEOUT_MAX_MS}"))
            })
        });
        let if_lock = self.if_lock.map(|lock| {
            headers::lock(&lock).ok_or_else(|| Problem::bad_request("if_lock must be NAME;token=N, the name encoded"))
        });
        let conditions = Conditions {
            if_match: self.if_match.map(Revision),
            if_none_match: false,
            if_lock: if_lock.transpose()?,
        };
        checks::name("room", &room)?;
        let idempotency = self.idempotency_key.zip(canonical).map(|(key, body)| {
            fields::idempotency_key(&key).map_err(Problem::refused)?;
            // That of the same send over HTTP, so that a client may change from one to the other.
            let request = fingerprint::Request {
                method: &Method::POST,
                path: &format!("/v1/rooms/{}/messages{below}", percent::encode(&room)),
                query: None,
                conditions: &conditions,
                body: &body,
            };
            let fingerprint = fingerprint::of(&request);
            Ok::<_, Problem>(Idempotency { key, fingerprint })
        });
        Ok(Box::new(Send {
            idempotency: idempotency.transpose()?,
            command: outgoing.into_command(room)?,
            conditions,
            timeout: timeout.transpose()?,
        }))
    }
}

/// The body in the form in which the fingerprint counts it: compact, and the fields in the order of their
/// declaration. What stands in a frame in another order, or with blanks, is the same send.
fn canonical(body: &impl Serialize) -> Bytes {
    serde_json::to_vec(body)
        .expect("a body of the contract can be written")
        .into()
}

fn missing(field: &str) -> Problem {
    Problem::bad_request(format!("failed to read the frame: missing field `{field}`"))
}

fn misplaced(field: &str, type_: &str) -> Problem {
    Problem::bad_request(format!("{field} belongs into a frame of type {type_}"))
}

#[cfg(test)]
mod tests {
    use quorate_client::wire::socket::{SendConditions, SocketRequest};

    use super::*;

    fn send(text: &str) -> Send {
        match Frame::read(text).unwrap().ask {
            Ask::Send(send) => *send,
            Ask::Ping => panic!("{text} is a ping"),
        }
    }

    fn refused(text: &str) -> (Option<String>, &'static str) {
        let unread = Frame::read(text).map(|frame| panic!("{frame:?}")).unwrap_err();
        (unread.id, unread.problem.code())
    }

    #[test]
    fn what_is_wrong_is_told_under_the_id_where_there_is_one() {
        for text in [
            "",
            "{",
            "[]",
            "null",
            "\"x\"",
            r#"{"type":"ping"}"#,
            r#"{"id":"","type":"ping"}"#,
            r#"{"id":"a b","type":"ping"}"#,
            r#"{"id":7,"type":"ping"}"#,
            r#"{"id":"x","id":"x","type":"ping"}"#,
        ] {
            assert_eq!(refused(text), (None, "bad_request"), "{text}");
        }
        let long = "x".repeat(129);
        for rest in [
            r#""type":"subscribe","room":"hall","after":3"#,
            r#""type":"frob""#,
            r#""type":"ping","text":"a""#,
            r#""type":"ping","room":"hall""#,
            r#""type":"send","room":"hall""#,
            r#""type":"send","text":"a""#,
            r#""type":"send","room":"hall","text":null"#,
            r#""type":"send","room":"hall","text":1"#,
            r#""type":"send","room":"hall","text":"a","x":1"#,
            r#""type":"send","room":"hall","text":"a","text":"a""#,
            r#""type":"send","room":"a b","text":"a""#,
            r#""type":"send","room":"hall","text":"a","client_id":"""#,
            r#""type":"send","room":"hall","text":"a","timeout_ms":0"#,
            r#""type":"send","room":"hall","text":"a","timeout_ms":60001"#,
            r#""type":"send","room":"hall","text":"a","if_lock":"a""#,
            r#""type":"send","room":"hall","text":"a","if_match":-1"#,
            r#""type":"send","room":"hall","text":"a","sender":"ann""#,
            r#""type":"send","room":"hall","text":"a","messages":[]"#,
            r#""type":"send_batch","room":"hall","text":"a""#,
            r#""type":"send_batch","room":"hall","messages":[]"#,
            r#""type":"send_batch","room":"hall","messages":[["a"]]"#,
            &format!(r#""type":"send","room":"hall","text":"a","idempotency_key":"{long}""#),
        ] {
            let (id, code) = refused(&format!(r#"{{"id":"x",{rest}}}"#));
            assert_eq!((id.as_deref(), code), (Some("x"), "bad_request"), "{rest}");
        }
        let large = format!(
            r#"{{"id":"x","type":"send","room":"a b","text":"{}"}}"#,
            "a".repeat(65537)
        );
        assert_eq!(refused(&large).1, "too_large", "before what is wrong in itself");
    }

    #[test]
    fn a_type_that_is_not_built_is_named() {
        let unread = Frame::read(r#"{"id":"x","type":"subscribe","room":"hall","after":3}"#).unwrap_err();
        let problem = unread.problem.into_answer("r").problem.problem;
        assert!(problem.detail.contains("subscribe"), "{}", problem.detail);
    }

    /// The two crates agree on the frames, and on the fingerprint with a body of HTTP.
    #[test]
    fn what_the_client_writes_is_read() {
        let message = NewMessage {
            text: "hi".to_owned(),
            client_id: Some("c-1".to_owned()),
            ..NewMessage::default()
        };
        let conditions = SendConditions {
            idempotency_key: Some("k-1"),
            if_lock: Some("deploy;token=7"),
            if_match: Some(42),
            timeout_ms: Some(100),
        };
        let request = SocketRequest::Send {
            id: "17",
            room: "张",
            message: &message,
            conditions,
        };
        let text = serde_json::to_string(&request).unwrap();
        let Send {
            command,
            conditions,
            idempotency,
            timeout,
        } = send(&text);
        let Command::Send { room, messages, batch } = command else {
            panic!("{command:?}");
        };
        assert_eq!((room.as_str(), messages.len(), batch), ("张", 1, false));
        assert_eq!(
            (messages[0].text.as_str(), timeout),
            ("hi", Some(Duration::from_millis(100)))
        );
        assert_eq!(conditions.if_match, Some(Revision(42)));
        let of_http = fingerprint::Request {
            method: &Method::POST,
            path: "/v1/rooms/%E5%BC%A0/messages",
            query: None,
            conditions: &conditions,
            body: &Bytes::from_static(br#"{"text":"hi","client_id":"c-1"}"#),
        };
        let idempotency = idempotency.unwrap();
        assert_eq!(
            (idempotency.key.as_str(), idempotency.fingerprint),
            ("k-1", fingerprint::of(&of_http))
        );
    }

    #[test]
    fn order_and_blanks_do_not_count_for_the_key() {
        let one = r#"{"id":"1","type":"send","room":"r","text":"a","kind":"notice","idempotency_key":"k"}"#;
        let two = r#"{ "idempotency_key":"k", "kind":"notice", "text":"a", "room":"r", "type":"send", "id":"2" }"#;
        assert_eq!(send(one).idempotency, send(two).idempotency);
        let other = one.replace("notice", "system");
        assert_ne!(send(one).idempotency, send(&other).idempotency);
    }
}
