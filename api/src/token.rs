//! Bearer tokens. A token is told once, to whoever signed in; what the log, the state and this node's memory
//! hold of it is its hash. A token has 256 bits of chance, so a fast hash is enough: nobody can try them all.

use blake2::digest::CtOutput;
use blake2::{Blake2b256, Digest};
use quorate_state_machine::TokenHash;

/// Says what it is, to people and to programs that look for secrets where none should be.
const PREFIX: &str = "qst_";
const BYTES: usize = 32;

/// A new session's token, as its holder keeps it.
pub(crate) fn new() -> String {
    let chance: [u8; BYTES] = rand::random();
    let hex: String = chance.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{PREFIX}{hex}")
}

/// Whether it can be a session's token: nobody else needs to be asked about one that cannot.
pub(crate) fn has_form(token: &str) -> bool {
    token
        .strip_prefix(PREFIX)
        .is_some_and(|hex| hex.len() == 2 * BYTES && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
}

/// What the log and the state know it by.
pub(crate) fn hash(token: &str) -> TokenHash {
    TokenHash(Blake2b256::digest(token).into())
}

/// The administrator's token, the same on all nodes. It is no session: it is in no log, never expires, and is
/// changed with the nodes' settings.
#[derive(Clone)]
pub struct RootToken {
    text: String,
    hash: CtOutput<Blake2b256>,
}

/// Visible characters of a root token: as much chance as a session's, in base64.
pub const ROOT_TOKEN_CHARS_MIN: usize = 32;
const ROOT_TOKEN_CHARS_MAX: usize = 1024;

impl RootToken {
    /// # Errors
    /// In words for the operator, without the token.
    pub fn new(text: &str) -> Result<Self, String> {
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("the root token must be visible ASCII characters on one line".to_owned());
        }
        if !(ROOT_TOKEN_CHARS_MIN..=ROOT_TOKEN_CHARS_MAX).contains(&text.len()) {
            return Err(format!(
                "the root token has {} characters, not {ROOT_TOKEN_CHARS_MIN} to {ROOT_TOKEN_CHARS_MAX}",
                text.len()
            ));
        }
        Ok(Self {
            hash: CtOutput::new(Blake2b256::digest(text)),
            text: text.to_owned(),
        })
    }

    /// For a node that asks another one as root.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Takes the same time for every token of a length.
    pub(crate) fn is(&self, token: &str) -> bool {
        CtOutput::new(Blake2b256::digest(token)) == self.hash
    }
}

impl PartialEq for RootToken {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
    }
}

impl Eq for RootToken {}

impl std::fmt::Debug for RootToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RootToken(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_new_each_time_and_have_a_form() {
        let (a, b) = (new(), new());
        assert!(has_form(&a) && a.len() == 68, "{a}");
        assert_ne!(a, b);
        for other in [
            "",
            "qst_",
            &a[1..],
            &a[..67],
            &format!("{a}0"),
            &a.to_uppercase(),
            &a.replace("qst_", "abc_"),
        ] {
            assert!(!has_form(other), "{other}");
        }
    }

    /// Golden: with another hash every token that was given out would be a bad one.
    #[test]
    fn the_hash_never_changes() {
        let token = format!("qst_{}", "00".repeat(32));
        let hash: String = hash(&token).0.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hash, "340ea065d111db6b181df7f3d87edf610a8f88e6abfc7d970c6477e84173548b");
    }

    #[test]
    fn a_root_token_is_long_visible_and_never_shown() {
        let text = "0123456789abcdef0123456789abcdef";
        let token = RootToken::new(text).unwrap();
        assert!(token.is(text) && !token.is("") && !token.is(&text[1..]) && !token.is(&text.to_uppercase()));
        assert_eq!(format!("{token:?}"), "RootToken(…)");
        for text in [
            "",
            &text[1..],
            &format!("{text} "),
            &format!("{text}\n"),
            &"é".repeat(32),
            &"x".repeat(1025),
        ] {
            let error = RootToken::new(text).unwrap_err();
            assert!(text.is_empty() || !error.contains(text), "{error}");
        }
    }
}
