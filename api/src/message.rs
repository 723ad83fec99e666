//! Messages as JSON, written from where they lie straight into an answer's buffer. Pages are what a node is asked
//! for most, and a message of a page is asked for again and again: so nothing is copied on the way, and the names
//! of the fields are not looked up. The bytes are those that serde makes of [`wire::Message`].

use std::ops::Range;

use quorate_client::wire;
use quorate_state_machine::query::{PageSink, StoredPage};
use quorate_state_machine::{Fatal, MessageRef};
use serde::Serialize;

use crate::kept::KeptMessages;
use crate::time::Rfc3339;

/// What a page's buffer grows by at most before there is anything to write: one of the longest messages grows again.
const PAGE_BYTES_AHEAD_MAX: usize = 64 << 10;
/// What a page says beside its messages fits, with a short one.
const PAGE_BYTES_LEAST: usize = 512;

/// The message as an object.
pub(crate) fn write(out: &mut Vec<u8>, message: &MessageRef<'_>) {
    let MessageRef {
        room,
        seq,
        rev,
        sender,
        sent_at_ms,
        kind,
        text,
        client_id,
        reply_to,
        attributes,
        edited_at_ms,
        redacted_at_ms,
    } = *message;
    out.extend_from_slice(b"{\"room\":");
    string(out, room);
    out.extend_from_slice(b",\"seq\":");
    plain(out, &seq.0);
    out.extend_from_slice(b",\"rev\":");
    plain(out, &rev.0);
    out.extend_from_slice(b",\"sender\":");
    string(out, sender);
    out.extend_from_slice(b",\"sent_at\":");
    time(out, sent_at_ms);
    out.extend_from_slice(b",\"kind\":");
    string(out, kind);
    if let Some(text) = text {
        out.extend_from_slice(b",\"text\":");
        string(out, text);
    }
    if let Some(client_id) = client_id {
        out.extend_from_slice(b",\"client_id\":");
        string(out, client_id);
    }
    if let Some(reply_to) = reply_to {
        out.extend_from_slice(b",\"reply_to\":");
        plain(out, &reply_to.0);
    }
    if let Some(edited_at_ms) = edited_at_ms {
        out.extend_from_slice(b",\"edited_at\":");
        time(out, edited_at_ms);
    }
    if let Some(redacted_at_ms) = redacted_at_ms {
        out.extend_from_slice(b",\"redacted_at\":");
        time(out, redacted_at_ms);
    }
    // Checked before they were stored, but text that is no object must not spoil the whole page.
    let attributes = attributes.and_then(|text| serde_json::from_str::<wire::Attributes>(text).ok());
    if let Some(attributes) = attributes {
        out.extend_from_slice(b",\"attributes\":");
        plain(out, &attributes);
    }
    out.push(b'}');
}

/// The page's messages from a seq on, with commas before all but the page's first. Says where each of them lies.
pub(crate) fn write_from(page: &StoredPage<'_>, seq: u64, out: &mut Vec<u8>) -> Result<Vec<Range<usize>>, Fatal> {
    let Range { start, end } = page.seqs();
    let mut spans: Vec<Range<usize>> = Vec::with_capacity(page.len());
    page.visit(seq..end, &mut |message| {
        if message.seq.0 > start {
            out.push(b',');
        }
        let begin = out.len();
        write(out, message);
        if spans.is_empty() {
            reserve(out, out.len() - begin, page.len());
        }
        spans.push(begin..out.len());
    })?;
    Ok(spans)
}

/// Makes room for a page by the length of one of its messages: the others will be about as long.
pub(crate) fn reserve(out: &mut Vec<u8>, message_bytes: usize, messages: usize) {
    out.reserve((message_bytes * messages / 8 * 9).min(PAGE_BYTES_AHEAD_MAX));
}

/// A page of history, written out as it is taken from the state.
pub(crate) struct PageBody<'a> {
    out: Vec<u8>,
    kept: &'a KeptMessages,
}

impl<'a> PageBody<'a> {
    pub(crate) fn new(kept: &'a KeptMessages) -> Self {
        let out = Vec::new();
        Self { out, kept }
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.out
    }
}

impl PageSink for PageBody<'_> {
    fn take(&mut self, page: &StoredPage<'_>) -> Result<(), Fatal> {
        let out = &mut self.out;
        out.reserve(PAGE_BYTES_LEAST);
        out.extend_from_slice(b"{\"messages\":[");
        self.kept.write(page, out)?;
        let ends = page.ends();
        out.extend_from_slice(b"],\"first_seq\":");
        plain(out, &ends.first_seq.0);
        out.extend_from_slice(b",\"last_seq\":");
        plain(out, &ends.last_seq.0);
        out.extend_from_slice(b",\"more_before\":");
        plain(out, &ends.more_before);
        out.extend_from_slice(b",\"more_after\":");
        plain(out, &ends.more_after);
        out.push(b'}');
        Ok(())
    }
}

fn time(out: &mut Vec<u8>, ms: u64) {
    out.push(b'"');
    out.extend_from_slice(Rfc3339::of_ms(ms).as_bytes());
    out.push(b'"');
}

fn string(out: &mut Vec<u8>, text: &str) {
    if needs_escapes(text.as_bytes()) {
        return plain(out, text);
    }
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

/// Whether JSON writes any of them otherwise. Looks at all of them, which is many at a time; to stop at the first
/// would be one at a time.
fn needs_escapes(bytes: &[u8]) -> bool {
    bytes.iter().fold(false, |found, byte| {
        found | (*byte < b' ') | (*byte == b'"') | (*byte == b'\\')
    })
}

fn plain<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value).expect("memory takes strings, numbers and what was JSON");
}

#[cfg(test)]
mod tests {
    use quorate_state_machine::{Message, Revision, Seq};

    use super::*;
    use crate::convert;

    fn written(message: &Message) -> String {
        let mut out = Vec::new();
        write(&mut out, &message.borrowed());
        String::from_utf8(out).unwrap()
    }

    fn message() -> Message {
        Message {
            room: "茶".to_owned(),
            seq: Seq(7),
            rev: Revision(8),
            sender: "ada".to_owned(),
            sent_at_ms: 1_767_225_600_123,
            kind: "text".to_owned(),
            text: Some("hello".to_owned()),
            client_id: None,
            reply_to: None,
            attributes: None,
            edited_at_ms: None,
            redacted_at_ms: None,
        }
    }

    /// GET and pages show the bytes that streams and edits show, which serde writes.
    #[test]
    fn the_bytes_are_those_of_serde() {
        let mut texts: Vec<String> = ["", "刚到,香得很。", "a\"b", "a\\b", "a/b", "\u{7f}\u{80}\u{2028}", "😀"]
            .map(str::to_owned)
            .to_vec();
        // Each character that is written otherwise, and its neighbours, wherever in a text it stands.
        for code in (0..0x30).chain(0x58..0x60) {
            let character = char::from(code);
            for place in [0, 1, 15, 16, 17, 31, 32, 33, 64] {
                texts.push(format!("{}{character}{}", "x".repeat(place), "y".repeat(40)));
            }
        }
        for text in texts {
            let mut full = message();
            full.room.clone_from(&text);
            full.sender.clone_from(&text);
            full.kind.clone_from(&text);
            full.client_id = Some(text.clone());
            full.text = Some(text);
            assert_eq!(written(&full), serde_json::to_string(&convert::message(full)).unwrap());
        }
    }

    #[test]
    fn what_is_absent_is_left_out_and_the_rest_is_in_its_place() {
        let full = Message {
            text: None,
            client_id: Some("c".to_owned()),
            reply_to: Some(Seq(u64::MAX)),
            attributes: Some("{\"a\":[1,2.50,1e3,null],\"b\":{}}".to_owned()),
            edited_at_ms: Some(0),
            redacted_at_ms: Some(u64::MAX),
            rev: Revision(u64::MAX),
            ..message()
        };
        assert_eq!(
            written(&full),
            serde_json::to_string(&convert::message(full.clone())).unwrap()
        );
        for attributes in ["", "[]", "{"] {
            let broken = Message {
                attributes: Some(attributes.to_owned()),
                ..full.clone()
            };
            assert!(!written(&broken).contains("attributes"));
            assert_eq!(
                written(&broken),
                serde_json::to_string(&convert::message(broken)).unwrap()
            );
        }
        assert_eq!(
            written(&message()),
            "{\"room\":\"茶\",\"seq\":7,\"rev\":8,\"sender\":\"ada\",\"sent_at\":\"2026-01-01T00:00:00.123Z\",\
             \"kind\":\"text\",\"text\":\"hello\"}"
        );
    }
}
