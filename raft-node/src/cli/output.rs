//! What a command prints: for people, or JSON for programs.

use std::io::{IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::exit::Failure;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
}

#[derive(Debug)]
pub(crate) struct Output {
    format: Format,
}

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        Self { format }
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// One line of JSON, or the text for people.
    pub(crate) fn value<T: Serialize>(&self, value: &T, text: impl FnOnce() -> String) -> Result<(), Failure> {
        let mut line = match self.format {
            Format::Json => serde_json::to_string(value).expect("what is printed has no keys but strings"),
            Format::Table => text(),
        };
        if !line.is_empty() {
            line.push('\n');
        }
        self.raw(line.as_bytes())
    }

    /// One line of JSON, or a table.
    pub(crate) fn table<T: Serialize>(
        &self,
        value: &T,
        header: &[&str],
        rows: impl FnOnce() -> Vec<Vec<String>>,
    ) -> Result<(), Failure> {
        self.value(value, || table(header, rows()))
    }

    /// Bytes as they are, at once: a reader at the other end of a pipe waits for them.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut stdout = std::io::stdout().lock();
        stdout
            .write_all(bytes)
            .and_then(|()| stdout.flush())
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::BrokenPipe => Failure::Closed,
                _ => Failure::Local(anyhow::Error::new(error).context("failed to write to standard output")),
            })
    }
}

fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if std::io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    if !header.is_empty() {
        table.set_header(header.iter().map(|name| name.to_uppercase()).collect::<Vec<_>>());
    }
    for row in rows {
        table.add_row(row.iter().map(|cell| visible(cell)).collect::<Vec<_>>());
    }
    if let Some(first) = table.column_mut(0) {
        first.set_padding((0, 1));
    }
    table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect::<Vec<_>>()
        .join("\n")
}

/// The text on one line, with control characters written out: what others have sent must not
/// steer the reader's terminal.
pub(crate) fn visible(text: &str) -> String {
    let mut visible = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => visible.push('⏎'),
            '\t' => visible.push(' '),
            // Also the marks that reorder what is shown.
            c if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
                visible.extend(c.escape_unicode());
            }
            c => visible.push(c),
        }
    }
    visible
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_written_out() {
        assert_eq!(visible("a\u{1b}[31mb\r\nc\td"), "a\\u{1b}[31mb\\u{d}⏎c d");
        assert_eq!(visible("张三 é 🙂"), "张三 é 🙂");
        assert_eq!(visible("a\u{202e}b"), "a\\u{202e}b");
    }

    #[test]
    fn tables_are_aligned_and_have_no_trailing_space() {
        let rows = vec![
            vec!["1".to_owned(), "a\nb".to_owned()],
            vec!["200".to_owned(), "c".to_owned()],
        ];
        let text = table(&["id", "name"], rows);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines, ["ID   NAME", "1    a⏎b", "200  c"]);
    }
}
