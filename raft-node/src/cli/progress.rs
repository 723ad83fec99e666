//! How far a long work is: a bar on a terminal, otherwise a line every few seconds. Always on
//! standard error.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Between two lines where there is no terminal.
const LINE_PAUSE: Duration = Duration::from_secs(3);

pub(crate) struct Progress {
    shown: Shown,
    began: Instant,
    total: u64,
    /// Where the work began: what had been done before is no part of the rate.
    start: u64,
}

enum Shown {
    Bar(ProgressBar),
    Lines { what: String, last: Instant },
}

impl Progress {
    pub(crate) fn new(what: &str, total: u64, start: u64) -> Self {
        let now = Instant::now();
        let shown = if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new(total).with_position(start);
            let style =
                ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} lines  {per_sec}  {eta}")
                    .expect("the template is well-formed");
            bar.set_style(style);
            bar.set_message(what.to_owned());
            bar.reset_eta();
            Shown::Bar(bar)
        } else {
            Shown::Lines {
                what: what.to_owned(),
                last: now,
            }
        };
        Self {
            shown,
            began: now,
            total,
            start,
        }
    }

    pub(crate) fn at(&mut self, position: u64) {
        let rate = rate(position - self.start, self.began.elapsed());
        match &mut self.shown {
            Shown::Bar(bar) => bar.set_position(position),
            Shown::Lines { what, last } if last.elapsed() >= LINE_PAUSE => {
                *last = Instant::now();
                let total = self.total;
                let _ = writeln!(std::io::stderr(), "{what}: {position} of {total} lines, {rate} lines/s");
            }
            Shown::Lines { .. } => {}
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}

/// Per second.
pub(crate) fn rate(count: u64, time: Duration) -> u64 {
    (count as f64 / time.as_secs_f64().max(0.001)) as u64
}
