//! How far a change of the membership is: a line that changes on a terminal, otherwise a line every
//! few seconds at most. On standard error, and only for people: programs read errors there.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::output::{Format, visible};

/// Between two lines where there is no terminal.
const LINE_PAUSE: Duration = Duration::from_secs(3);
/// Between two pictures of what turns on a terminal.
const TURN: Duration = Duration::from_millis(100);

pub(super) enum Progress {
    Nothing,
    Spinner(ProgressBar),
    Lines { last: Option<(Instant, String)> },
}

impl Progress {
    pub(super) fn new(format: Format) -> Self {
        if format == Format::Json {
            return Self::Nothing;
        }
        if !std::io::stderr().is_terminal() {
            return Self::Lines { last: None };
        }
        let style =
            ProgressStyle::with_template("{spinner} {elapsed}  {wide_msg}").expect("the template is well-formed");
        let spinner = ProgressBar::new_spinner().with_style(style);
        spinner.enable_steady_tick(TURN);
        Self::Spinner(spinner)
    }

    pub(super) fn say(&mut self, words: &str) {
        let words = visible(words);
        match self {
            Self::Nothing => {}
            Self::Spinner(spinner) => spinner.set_message(words),
            Self::Lines { last } => {
                let is_news = last
                    .as_ref()
                    .is_none_or(|(at, said)| *said != words && at.elapsed() >= LINE_PAUSE);
                if is_news {
                    let _ = writeln!(std::io::stderr(), "{words}");
                    *last = Some((Instant::now(), words));
                }
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Self::Spinner(spinner) = self {
            spinner.finish_and_clear();
        }
    }
}
