//! What goes on, on standard error: a bar on a terminal, otherwise a line every few seconds.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use quorate_bench::Live;
use tokio::task::JoinHandle;

/// Between two looks at what was done.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// Between two lines where there is no terminal.
const LINE_PAUSE: Duration = Duration::from_secs(3);

/// A line of its own.
pub(super) fn say(what: &str) {
    let _ = writeln!(std::io::stderr(), "{what}");
}

/// Shows what goes on until it is dropped.
pub(super) struct Progress {
    task: JoinHandle<()>,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// `units`: such as messages. `total`: how long it will take, as far as that is known.
    pub(super) fn new(live: Arc<Live>, units: &'static str, total: Option<Duration>) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let (bar, template) = match total {
                Some(total) => (ProgressBar::new(total.as_secs().max(1)), "{elapsed} {wide_bar} {msg}"),
                None => (ProgressBar::new_spinner(), "{elapsed} {spinner} {msg}"),
            };
            bar.with_style(ProgressStyle::with_template(template).expect("the template is well-formed"))
        });
        Self {
            task: tokio::spawn(show(live, units, bar.clone())),
            bar,
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

async fn show(live: Arc<Live>, units: &'static str, bar: Option<ProgressBar>) {
    let mut last = (live.units(), Instant::now());
    let pause = if bar.is_some() { LOOK_PAUSE } else { LINE_PAUSE };
    loop {
        tokio::time::sleep(pause).await;
        let (now, done, errors) = (Instant::now(), live.units(), live.errors());
        let rate = (done - last.0) as f64 / (now - last.1).as_secs_f64();
        last = (done, now);
        let line = format!("{done} {units}, {rate:.0}/s, {errors} errors");
        match &bar {
            Some(bar) => {
                bar.set_message(line);
                bar.inc(LOOK_PAUSE.as_secs());
            }
            None => say(&line),
        }
    }
}
