//! What makes an import repeatable: the `client_id` of each line, from file name and line number.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

/// `client_id` has at most 128 bytes; this leaves room for what stands around the name.
const NAME_BYTES_MAX: usize = 96;

/// The keys of one file's lines. Only the file's name counts, not its directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileKey {
    prefix: String,
}

impl FileKey {
    /// Names of any length and script become short ASCII; a long one is cut, and told apart from
    /// others by its checksum.
    /// `format` keeps the keys of formats apart.
    pub(crate) fn new(format: &str, file_name: &str) -> Self {
        const KEPT: &percent_encoding::AsciiSet = &NON_ALPHANUMERIC
            .remove(b'-')
            .remove(b'.')
            .remove(b'_')
            .remove(b'~')
            .remove(b'#');
        let mut name = utf8_percent_encode(file_name, KEPT).to_string();
        if name.len() > NAME_BYTES_MAX {
            name.truncate(NAME_BYTES_MAX - 9);
            name.push_str(&format!("~{:08x}", crc32fast::hash(file_name.as_bytes())));
        }
        Self {
            prefix: format!("{format}:{name}:"),
        }
    }

    /// Of the line with this number, from 1.
    pub(crate) fn client_id(&self, line: u64) -> String {
        format!("{}{line}", self.prefix)
    }

    /// Of these lines together, in the room with this id.
    pub(crate) fn of_batch(&self, room: u64, first: u64, last: u64) -> String {
        format!("{}{room}:{first}-{last}", self.prefix)
    }

    /// The number of the line with this `client_id`, if it is of this file.
    pub(crate) fn line(&self, client_id: &str) -> Option<u64> {
        let number = client_id.strip_prefix(&self.prefix)?;
        let number = number.parse().ok()?;
        // Only what `client_id` writes: no sign, no leading zero.
        (number > 0 && self.client_id(number) == client_id).then_some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_name_file_and_line() {
        let key = FileKey::new("irc", "2004-11-15_03 #chat.txt");
        assert_eq!(key.client_id(17), "irc:2004-11-15_03%20#chat.txt:17");
        assert_eq!(key.line("irc:2004-11-15_03%20#chat.txt:17"), Some(17));
        for other in [
            "",
            "irc:2004-11-15_03%20#chat.txt:",
            "irc:2004-11-15_03%20#chat.txt:017",
            "irc:b:17",
            "17",
        ] {
            assert_eq!(key.line(other), None, "{other:?}");
        }
    }

    #[test]
    fn long_names_fit_and_differ() {
        let (one, two) = (
            FileKey::new("irc", &"日".repeat(80)),
            FileKey::new("irc", &"日".repeat(81)),
        );
        assert_ne!(one, two);
        assert!(
            one.client_id(u64::MAX).len() <= 128,
            "{}",
            one.client_id(u64::MAX).len()
        );
        assert_eq!(one.line(&one.client_id(5)), Some(5));
        assert_eq!(one.line(&two.client_id(5)), None);
    }
}
