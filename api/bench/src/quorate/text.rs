//! The texts that are sent: each begins with a number, so that what comes back can be told from another.

use bytes::{BufMut, Bytes, BytesMut};

/// So many hexadecimal digits, the last ones of the number, as far as the text has room.
const DIGITS: usize = 16;

/// Texts of one size, and bodies with them.
#[derive(Debug, Clone)]
pub(crate) struct Texts {
    /// What follows the digits.
    rest: String,
    digits: usize,
}

impl Texts {
    /// `bytes` may be 0: then all texts are the same, empty.
    pub(crate) fn new(bytes: usize) -> Self {
        let digits = bytes.min(DIGITS);
        // Words of some length, so that a compressor finds what it finds in a chat.
        let rest = " the quick brown fox jumps over the lazy dog,"
            .chars()
            .cycle()
            .take(bytes - digits)
            .collect();
        Self { rest, digits }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.digits + self.rest.len()
    }

    /// The text of this number.
    pub(crate) fn text(&self, number: u64) -> String {
        let digits = format!("{number:016x}");
        format!("{}{}", &digits[DIGITS - self.digits..], self.rest)
    }

    pub(crate) fn is(&self, text: &str, number: u64) -> bool {
        let digits = format!("{number:016x}");
        text.strip_prefix(&digits[DIGITS - self.digits..]) == Some(self.rest.as_str())
    }

    /// The number of a text that has all its digits.
    pub(crate) fn number(&self, text: &str) -> Option<u64> {
        if self.digits < DIGITS {
            return None;
        }
        u64::from_str_radix(text.get(..DIGITS)?, 16).ok()
    }

    /// `{"text":"…"}`.
    pub(crate) fn body(&self, number: u64) -> Bytes {
        let mut body = BytesMut::with_capacity(self.bytes() + 16);
        self.put(&mut body, number);
        body.freeze()
    }

    /// `{"messages":[{"text":"…"},…]}` of the numbers from `first` on.
    pub(crate) fn batch(&self, first: u64, count: u64) -> Bytes {
        let each = self.bytes() + 16;
        let mut body = BytesMut::with_capacity(each * count as usize + 32);
        body.put_slice(b"{\"messages\":[");
        for number in first..first + count {
            if number > first {
                body.put_u8(b',');
            }
            self.put(&mut body, number);
        }
        body.put_slice(b"]}");
        body.freeze()
    }

    fn put(&self, body: &mut BytesMut, number: u64) {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        body.put_slice(b"{\"text\":\"");
        for place in (0..self.digits).rev() {
            body.put_u8(HEX[(number >> (4 * place) & 15) as usize]);
        }
        // Neither the digits nor the words have anything that JSON escapes.
        body.put_slice(self.rest.as_bytes());
        body.put_slice(b"\"}");
    }
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
            let body: Value = serde_json::from_slice(&texts.body(0xabc)).unwrap();
            assert_eq!(body, json!({ "text": text }));
        }
    }

    #[test]
    fn a_batch_has_the_numbers_in_order() {
        let texts = Texts::new(20);
        let body: Value = serde_json::from_slice(&texts.batch(7, 3)).unwrap();
        let expected: Vec<Value> = (7..10).map(|number| json!({ "text": texts.text(number) })).collect();
        assert_eq!(body, json!({ "messages": expected }));
    }
}
