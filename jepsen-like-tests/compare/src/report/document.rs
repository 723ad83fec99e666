//! Paragraphs and tables, as Markdown and as text.

use comfy_table::{ContentArrangement, Table, presets};

/// Where nobody says how wide a line may be.
const WIDTH: u16 = 180;

#[derive(Debug, Default)]
pub(super) struct Document {
    blocks: Vec<Block>,
}

#[derive(Debug)]
enum Block {
    Paragraph(String),
    Table(Vec<String>, Vec<Vec<String>>),
}

impl Document {
    pub(super) fn paragraph(&mut self, text: String) {
        self.blocks.push(Block::Paragraph(text));
    }

    pub(super) fn table(&mut self, header: &[&str], rows: Vec<Vec<String>>) {
        let header = header.iter().map(|name| (*name).to_owned()).collect();
        self.blocks.push(Block::Table(header, rows));
    }

    /// To be pasted into a page.
    pub(super) fn markdown(&self) -> String {
        let block = |block: &Block| match block {
            Block::Paragraph(text) => format!("{text}\n"),
            Block::Table(header, rows) => {
                let line = |cells: &[String]| format!("| {} |\n", cells.join(" | ").trim_end());
                let rule = format!("|{}\n", "---|".repeat(header.len()));
                let rows: String = rows.iter().map(|row| line(row)).collect();
                line(header) + &rule + &rows
            }
        };
        self.blocks.iter().map(block).collect::<Vec<_>>().join("\n")
    }

    /// For a terminal.
    pub(super) fn text(&self) -> String {
        let block = |block: &Block| match block {
            Block::Paragraph(text) => format!("{text}\n"),
            Block::Table(header, rows) => {
                let mut table = Table::new();
                table
                    .load_style(presets::NOTHING)
                    .set_content_arrangement(ContentArrangement::Dynamic)
                    .set_header(header)
                    .add_rows(rows);
                if table.width().is_none() {
                    table.set_width(WIDTH);
                }
                format!("{table}\n")
            }
        };
        self.blocks.iter().map(block).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_stands_apart_from_what_is_before_it() {
        let mut document = Document::default();
        document.paragraph("Before.".into());
        document.table(
            &["a", "b"],
            vec![vec!["1".into(), "2".into()], vec!["3".into(), String::new()]],
        );
        assert_eq!(
            document.markdown(),
            "Before.\n\n| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | |\n"
        );
        let text = document.text();
        assert!(text.starts_with("Before.\n\n") && text.contains('3'), "{text}");
    }
}
