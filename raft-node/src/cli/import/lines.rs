//! A file's lines, one at a time: a log may be larger than memory.

use std::path::Path;

use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use crate::cli::exit::Failure;
use crate::cli::send::without_line_end;

/// No line is read beyond this; far more than a message may have.
const LINE_BYTES_MAX: u64 = 1 << 20;

pub(crate) struct Lines<'a> {
    path: &'a Path,
    reader: BufReader<File>,
    /// Of the line that was read last, from 1.
    pub(crate) number: u64,
    line: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TextLine {
    pub(crate) text: String,
    /// Bytes that were not UTF-8.
    pub(crate) replaced_bytes: u64,
}

impl<'a> Lines<'a> {
    pub(crate) async fn open(path: &'a Path) -> Result<Self, Failure> {
        let file = File::open(path).await.map_err(|error| failed_to_read(path, error))?;
        Ok(Self {
            path,
            reader: BufReader::with_capacity(64 << 10, file),
            number: 0,
            line: Vec::new(),
        })
    }

    /// The next line without its end (LF or CRLF). What follows the last line end is a line unless
    /// it is empty.
    pub(crate) async fn next(&mut self) -> Result<Option<TextLine>, Failure> {
        self.line.clear();
        let mut limited = (&mut self.reader).take(LINE_BYTES_MAX);
        let read = limited.read_until(b'\n', &mut self.line).await;
        if read.map_err(|error| failed_to_read(self.path, error))? == 0 {
            return Ok(None);
        }
        self.number += 1;
        if self.line.len() as u64 == LINE_BYTES_MAX {
            return Err(self.wrong(&format!("has more than {LINE_BYTES_MAX} bytes")));
        }
        Ok(Some(decode(without_line_end(&self.line))))
    }
}

impl Lines<'_> {
    /// What is wrong with the line that was read last.
    pub(crate) fn wrong(&self, why: &str) -> Failure {
        Failure::Usage(format!("{}: line {} {why}", self.path.display(), self.number))
    }
}

/// Replaces and counts what is not UTF-8.
fn decode(bytes: &[u8]) -> TextLine {
    let mut text = String::with_capacity(bytes.len());
    let mut replaced_bytes = 0;
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        if !chunk.invalid().is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
            replaced_bytes += chunk.invalid().len() as u64;
        }
    }
    TextLine { text, replaced_bytes }
}

pub(crate) fn failed_to_read(path: &Path, error: std::io::Error) -> Failure {
    Failure::Local(anyhow::Error::new(error).context(format!("failed to read {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_not_utf8_are_replaced_and_counted() {
        for (bytes, text, replaced_bytes) in [
            (&b"plain"[..], "plain", 0),
            ("é 张".as_bytes(), "é 张", 0),
            (b"caf\xe9", "caf\u{fffd}", 1),
            (b"\xff\xfe", "\u{fffd}\u{fffd}", 2),
            // A character that was cut off is replaced once and counts all its bytes.
            (b"\xe5\xbc.", "\u{fffd}.", 2),
        ] {
            assert_eq!(
                decode(bytes),
                TextLine {
                    text: text.into(),
                    replaced_bytes
                },
                "{bytes:?}"
            );
        }
    }
}
