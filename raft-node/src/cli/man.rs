//! `quorate man`: the manual, from the command line's own definitions.

use std::path::{Path, PathBuf};

use anyhow::Context;

use super::exit::Failure;
use super::output::Output;

const EXAMPLES: &str = "Examples:
  quorate man | man -l -
  quorate man --dir /usr/local/share/man/man1";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Man {
    /// Write a page for `quorate` and for each of its commands into this directory
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Man {
    pub(crate) fn run(self, command: clap::Command, output: &Output) -> Result<(), Failure> {
        match self.dir {
            None => {
                let mut page = Vec::new();
                clap_mangen::Man::new(command)
                    .render(&mut page)
                    .map_err(Failure::local)?;
                output.raw(&page)
            }
            Some(dir) => write(command, &dir).map_err(Failure::Local),
        }
    }
}

fn write(command: clap::Command, dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir)
        .and_then(|()| clap_mangen::generate_to(command, dir))
        .with_context(|| format!("failed to write manual pages to {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    /// The names of the pages that the command and all below it should have.
    fn pages(command: &clap::Command, prefix: &str, found: &mut Vec<String>) {
        let name = format!("{prefix}{}", command.get_name());
        found.push(format!("{name}.1"));
        // What is hidden is for the program itself.
        let shown = |one: &&clap::Command| one.get_name() != "help" && !one.is_hide_set();
        for below in command.get_subcommands().filter(shown) {
            pages(below, &format!("{name}-"), found);
        }
    }

    #[test]
    fn every_command_has_a_page_that_says_what_it_is() {
        let dir = tempfile::tempdir().expect("a directory");
        write(Cli::command(), dir.path()).expect("pages");
        let mut wanted = Vec::new();
        pages(&Cli::command(), "", &mut wanted);
        assert!(wanted.contains(&"quorate-import-jsonl.1".to_owned()), "{wanted:?}");
        for name in &wanted {
            let page = std::fs::read_to_string(dir.path().join(name)).expect(name);
            assert!(
                page.contains(".SH NAME") && page.contains(".SH SYNOPSIS"),
                "{name}: {page}"
            );
        }
    }
}
