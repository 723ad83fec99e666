//! From an IRC nick to the name of a user.

use unicode_normalization::UnicodeNormalization;

/// The contract's bound of a name.
const NAME_BYTES_MAX: usize = 128;

/// The nick itself where it is a name of the contract. Else, always in the same way: brought into
/// NFC; white space, control characters and `/` written as `%XX`, a byte each; and what is longer
/// than 128 bytes cut to 119, with `~` and a checksum of the whole at its end.
pub(crate) fn user_name(nick: &str) -> String {
    let mut name = String::with_capacity(nick.len());
    for c in nick.nfc() {
        if c.is_whitespace() || c.is_control() || c == '/' {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                name.push_str(&format!("%{byte:02X}"));
            }
        } else {
            name.push(c);
        }
    }
    if name.len() > NAME_BYTES_MAX {
        let checksum = crc32fast::hash(name.as_bytes());
        name.truncate(name.floor_char_boundary(NAME_BYTES_MAX - 9));
        name.push_str(&format!("~{checksum:08x}"));
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nicks_that_are_names_stay() {
        for nick in [
            "ann",
            "[Nick]|away",
            "a%b",
            "张三",
            "root",
            "\u{fffd}",
            &"x".repeat(128),
        ] {
            assert_eq!(user_name(nick), nick);
        }
    }

    #[test]
    fn others_are_escaped_always_in_the_same_way() {
        assert_eq!(user_name("a b/c\u{1}"), "a%20b%2Fc%01");
        assert_eq!(user_name("a\u{3000}"), "a%E3%80%80");
        assert_eq!(user_name("e\u{301}"), "\u{e9}");
        let (long, longer) = (user_name(&"日".repeat(43)), user_name(&"日".repeat(44)));
        assert_ne!(long, longer);
        assert!(long.len() <= NAME_BYTES_MAX && long.starts_with("日"), "{long}");
        assert_eq!(long, user_name(&"日".repeat(43)));
    }
}
