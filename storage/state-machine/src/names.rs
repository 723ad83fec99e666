//! Which names users, rooms and locks may have.

use unicode_normalization::is_nfc;

use crate::limits::NAME_BYTES_MAX;
use crate::rejection::{Code, Rejection};

/// The administrator's name. No user can have it: he is not stored, and never a member.
pub const ROOT: &str = "root";

/// 1–128 bytes of UTF-8 in NFC, without white space, control characters or `/`.
/// Refuses with [`Code::BadRequest`].
pub fn valid_name(name: &str) -> Result<(), Rejection> {
    check("name", name)
}

/// As [`valid_name`]; the refusal calls the name `what` (for example `room`).
pub fn check(what: &str, name: &str) -> Result<(), Rejection> {
    check_length(what, name, NAME_BYTES_MAX)
}

/// A name with its own bound in bytes.
pub(crate) fn check_length(what: &str, name: &str, bytes_max: usize) -> Result<(), Rejection> {
    let refuse = |reason: String| Err(Rejection::new(Code::BadRequest, format!("{what}: a name {reason}")));
    if name.is_empty() {
        return refuse("must not be empty".to_owned());
    }
    if name.len() > bytes_max {
        return refuse(format!("has at most {bytes_max} bytes, this one has {}", name.len()));
    }
    // Nearly all names; and names are checked in each command, where it is accepted and where it is applied.
    if name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/') {
        return Ok(());
    }
    if name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '/') {
        return refuse("has no white space, no control characters and no '/'".to_owned());
    }
    // Two names that look the same must be the same.
    if !name.is_ascii() && !is_nfc(name) {
        return refuse("must be in Unicode normalization form C".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_contract_are_names() {
        for name in [
            "张三",
            "[Nick]|away",
            "room-7",
            "a",
            "Ünï",
            ".",
            "%41",
            &"x".repeat(128),
            "🙂",
        ] {
            assert_eq!(valid_name(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn what_is_not_a_name_is_a_bad_request() {
        let long = "x".repeat(129);
        // The last two: white space beyond ASCII, and "é" written as two code points.
        for name in [
            "",
            " ",
            "a b",
            "a/b",
            "a\nb",
            "a\0",
            "\u{7f}",
            &long,
            "a\u{a0}b",
            "a\u{3000}",
            "e\u{301}",
        ] {
            let rejection = check("room", name).unwrap_err();
            assert_eq!(rejection.code, Code::BadRequest, "{name:?}");
            assert!(rejection.detail.starts_with("room: "), "{}", rejection.detail);
        }
        // 43 characters of 3 bytes are too many bytes.
        assert!(valid_name(&"张".repeat(43)).is_err());
        assert!(valid_name(&"张".repeat(42)).is_ok());
    }
}
