//! The texts that are sent: each begins with a number, so that what comes back can be told from another.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::scatter;

/// So many hexadecimal digits, the last ones of the number, as far as the text has room.
const DIGITS: usize = 16;

/// What one request carries: the texts of these numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    Message(u64),
    Batch { first: u64, count: u64 },
}

/// What texts are cut from. So long that within what a compressor sees at a time (a block of a table) hardly two texts
/// are cut from the same place.
const PROSE_BYTES: usize = 1 << 20;

/// Of the invented words. Few are frequent and most are rare, as in a language.
const WORDS: usize = 4000;

/// Texts of one size, and bodies with them.
#[derive(Debug, Clone)]
pub struct Texts {
    /// [`PROSE_BYTES`], and as many as a text that is cut from the last place needs.
    prose: Arc<str>,
    /// Of what follows the digits.
    rest_bytes: usize,
    digits: usize,
}

impl Texts {
    /// `bytes` may be 0: then all texts are the same, empty.
    pub fn new(bytes: usize) -> Self {
        let digits = bytes.min(DIGITS);
        let rest_bytes = bytes - digits;
        Self {
            prose: prose(PROSE_BYTES + rest_bytes).into(),
            rest_bytes,
            digits,
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.digits + self.rest_bytes
    }

    /// The text of this number.
    pub fn text(&self, number: u64) -> String {
        let digits = format!("{number:016x}");
        format!("{}{}", &digits[DIGITS - self.digits..], self.rest(number))
    }

    /// Whether it is the text of this number.
    pub fn is(&self, text: &str, number: u64) -> bool {
        let digits = format!("{number:016x}");
        text.strip_prefix(&digits[DIGITS - self.digits..]) == Some(self.rest(number))
    }

    /// What follows the digits: cut from another place for each number.
    fn rest(&self, number: u64) -> &str {
        let place = scatter(number) as usize % PROSE_BYTES;
        &self.prose[place..place + self.rest_bytes]
    }

    /// The number of a text that has all its digits.
    pub(crate) fn number(&self, text: &str) -> Option<u64> {
        if self.digits < DIGITS {
            return None;
        }
        u64::from_str_radix(text.get(..DIGITS)?, 16).ok()
    }

    /// What a request with this content has in its JSON object: `"text":"…"`, or `"messages":[{"text":"…"},…]`.
    pub(crate) fn put(&self, body: &mut BytesMut, content: Content) {
        match content {
            Content::Message(number) => self.put_text(body, number),
            Content::Batch { first, count } => {
                body.put_slice(b"\"messages\":[");
                for number in first..first + count {
                    body.put_slice(if number > first { b",{" } else { b"{" });
                    self.put_text(body, number);
                    body.put_u8(b'}');
                }
                body.put_u8(b']');
            }
        }
    }

    /// At least the bytes that [`Texts::put`] puts, and a pair of braces.
    pub(crate) fn room_for(&self, content: Content) -> usize {
        let each = self.bytes() + 16;
        match content {
            Content::Message(_) => each,
            Content::Batch { count, .. } => each * count as usize + 32,
        }
    }

    /// The whole object: the body of a request.
    pub(crate) fn body(&self, content: Content) -> Bytes {
        let mut body = BytesMut::with_capacity(self.room_for(content));
        body.put_u8(b'{');
        self.put(&mut body, content);
        body.put_u8(b'}');
        body.freeze()
    }

    fn put_text(&self, body: &mut BytesMut, number: u64) {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        body.put_slice(b"\"text\":\"");
        for place in (0..self.digits).rev() {
            body.put_u8(HEX[(number >> (4 * place) & 15) as usize]);
        }
        // Neither the digits nor the words have anything that JSON escapes.
        body.put_slice(self.rest(number).as_bytes());
        body.put_u8(b'"');
    }
}

/// Invented words, always the same ones: what is sent should take a compressor as much work, and give it as little, as what
/// people write. One text again and again would be a twentieth of its size on a disk, and hide what storing it costs.
fn prose(bytes: usize) -> String {
    const CONSONANTS: &[u8] = b"tnshrdlcmwfgypbvkj";
    const VOWELS: &[u8] = b"eaoiu";
    let mut calls = 0;
    let mut below = |bound: usize| {
        calls += 1;
        scatter(calls) as usize % bound
    };
    let mut word = || {
        let syllables = (0..1 + below(3)).map(|_| [CONSONANTS[below(CONSONANTS.len())], VOWELS[below(VOWELS.len())]]);
        syllables.flatten().map(char::from).collect::<String>()
    };
    let words: Vec<String> = (0..WORDS).map(|_| word()).collect();
    let mut prose = String::with_capacity(bytes + 8);
    while prose.len() < bytes {
        // The word of rank n is as frequent as 1/n (Zipf's law).
        let rank = (WORDS as f64).powf(below(1 << 20) as f64 / f64::from(1 << 20));
        prose.push_str(&words[rank as usize - 1]);
        prose.push(' ');
    }
    prose.truncate(bytes);
    prose
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn texts_have_their_size_and_their_number() {
        for bytes in [0, 1, 8, 16, 17, 256, 65_536] {
            let texts = Texts::new(bytes);
            let text = texts.text(0xabc);
            assert_eq!((text.len(), texts.bytes()), (bytes, bytes));
            assert!(texts.is(&text, 0xabc));
            assert_eq!(texts.is(&text, 0xabd), bytes == 0, "{bytes}");
            assert!(!texts.is(&format!("{text}x"), 0xabc));
            assert_eq!(texts.number(&text), (bytes >= 16).then_some(0xabc));
            let body: Value = serde_json::from_slice(&texts.body(Content::Message(0xabc))).unwrap();
            assert_eq!(body, json!({ "text": text }));
        }
    }

    #[test]
    fn texts_of_two_numbers_have_hardly_a_word_in_common_places() {
        let texts = Texts::new(256);
        let (one, other) = (texts.text(1), texts.text(2));
        let same = one.bytes().zip(other.bytes()).filter(|(one, other)| one == other);
        // Of 16 digits nearly all are; of the rest about as many as of two letters of a language.
        assert!(same.count() < 60);
        assert_eq!(one, Texts::new(256).text(1));
    }

    #[test]
    fn a_batch_has_the_numbers_in_order() {
        let texts = Texts::new(20);
        let body: Value = serde_json::from_slice(&texts.body(Content::Batch { first: 7, count: 3 })).unwrap();
        let expected: Vec<Value> = (7..10).map(|number| json!({ "text": texts.text(number) })).collect();
        assert_eq!(body, json!({ "messages": expected }));
    }

    #[test]
    fn there_is_room_for_what_is_put() {
        for bytes in [0, 5, 256] {
            for content in [
                Content::Message(1),
                Content::Batch { first: 0, count: 1 },
                Content::Batch { first: 3, count: 100 },
            ] {
                let texts = Texts::new(bytes);
                assert!(texts.body(content).len() <= texts.room_for(content), "{content:?}");
            }
        }
    }
}
