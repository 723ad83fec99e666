//! Names in paths and headers: percent-encoded UTF-8.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};

/// Everything but the unreserved characters of RFC 3986 is encoded.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

pub(crate) fn encode(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// None where a `%` is not followed by two hex digits, or the bytes are not UTF-8.
pub(crate) fn decode(encoded: &[u8]) -> Option<String> {
    let mut rest = encoded;
    while let Some(at) = rest.iter().position(|byte| *byte == b'%') {
        match rest.get(at + 1..at + 3) {
            Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => rest = &rest[at + 3..],
            _ => return None,
        }
    }
    percent_decode(encoded).decode_utf8().ok().map(|text| text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_decodes_to_the_same_name() {
        for name in ["room-7", "张三", "[Nick]|away", "100%", "a+b c?d#e/f"] {
            assert_eq!(decode(encode(name).as_bytes()).as_deref(), Some(name));
        }
        assert_eq!(encode("room-7_~.x"), "room-7_~.x");
    }

    #[test]
    fn half_an_escape_and_broken_utf8_are_refused() {
        for broken in [&b"%"[..], b"a%4", b"%zz", b"%ff%fe", b"%\xe4\xb8"] {
            assert_eq!(decode(broken), None, "{broken:?}");
        }
    }
}
