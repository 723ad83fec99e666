//! Tells how a run goes on, on stderr: on a terminal in one line that changes, else in a line every ten seconds.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::board::Board;
use crate::history::{Ended, History};

const LOOK_EVERY: Duration = Duration::from_millis(250);
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Tells until it is dropped.
#[derive(Debug)]
pub struct Progress {
    task: tokio::task::JoinHandle<()>,
    bar: Option<ProgressBar>,
}

impl Progress {
    pub fn start(board: Arc<Board>, history: Arc<History>) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner} {wide_msg}").expect("the template is well-formed");
            ProgressBar::new_spinner().with_style(style)
        });
        let task = tokio::spawn(tell(board, history, bar.clone()));
        Self { task, bar }
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

async fn tell(board: Arc<Board>, history: Arc<History>, bar: Option<ProgressBar>) {
    let mut before = (Instant::now(), Ended::default());
    let mut phase = String::new();
    loop {
        // A new phase is told at once.
        let until = Instant::now() + if bar.is_some() { LOOK_EVERY } else { LINE_EVERY };
        while Instant::now() < until && board.shown().phase == phase {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        phase = board.shown().phase;
        let now = (Instant::now(), history.ended());
        let line = line(&board, before.1, now.1, now.0 - before.0);
        before = now;
        match &bar {
            Some(bar) => {
                bar.set_message(line);
                bar.tick();
            }
            None => eprintln!("{line}"),
        }
    }
}

fn line(board: &Board, before: Ended, now: Ended, took: Duration) -> String {
    let shown = board.shown();
    let rate = (now.ok - before.ok) as f64 / took.as_secs_f64();
    let left = shown.left().map(|left| format!("{:.0} s left, ", left.as_secs_f64()));
    let broken: Vec<&str> = shown.broken.values().map(String::as_str).collect();
    let broken = match broken.is_empty() {
        true => "nothing is broken".to_owned(),
        false => format!("broken: {}", broken.join("; ")),
    };
    format!(
        "{}: {}{rate:.0} ops/s, {} done ({} writes), {} refused, {} unknown, {} faults, {broken}",
        shown.phase,
        left.unwrap_or_default(),
        now.ok,
        now.written,
        now.failed,
        now.unknown,
        shown.faults
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_happens_and_what_is_broken() {
        let board = Board::default();
        board.phase("clients at work");
        board.until(Some(Instant::now() + Duration::from_secs(42)));
        board.begun(3, "kill: node 2".to_owned());
        let now = Ended {
            ok: 500,
            failed: 2,
            unknown: 3,
            written: 400,
        };
        assert_eq!(
            line(&board, Ended::default(), now, Duration::from_secs(5)),
            "clients at work: 42 s left, 100 ops/s, 500 done (400 writes), 2 refused, 3 unknown, 1 faults, \
             broken: kill: node 2"
        );
        board.healed(3);
        assert!(line(&board, now, now, Duration::from_secs(5)).ends_with("1 faults, nothing is broken"));
    }
}
