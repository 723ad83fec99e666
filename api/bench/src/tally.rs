//! What is counted while a run goes on.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::sample::Sample;
use crate::target::{Done, Fault};
use crate::times::Times;

/// Beyond so many different codes the rest are one, `other`: a server that makes codes up must not fill memory.
const CODES_MAX: usize = 100;
/// So many wrong answers are told in words; all are counted.
pub(crate) const WRONG_TOLD_MAX: usize = 10;
/// The code under which wrong answers stand among the errors.
pub(crate) const WRONG: &str = "wrong_answer";
/// The code of an operation that was not answered in time.
pub(crate) const NO_ANSWER: &str = "no_answer";
/// In the open loop, an operation that starts so much after it was due started late. The timers have
/// milliseconds, and a busy machine needs some more.
pub(crate) const LATE_AFTER: Duration = Duration::from_millis(10);

/// From when to when it is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) begin: Instant,
    pub(crate) end: Instant,
}

impl Window {
    fn has(&self, at: Instant) -> bool {
        self.begin <= at && at < self.end
    }
}

#[derive(Debug)]
pub(crate) struct Tally<R> {
    window: Window,
    /// Of each kind: those that began in the window.
    pub(crate) times: Vec<Times>,
    /// Ended within the window, whenever they began: as many are under way when it opens as when it closes, so
    /// this is what gives the rate.
    pub(crate) operations: u64,
    pub(crate) units: u64,
    /// Those that began in the window.
    pub(crate) errors: BTreeMap<Cow<'static, str>, u64>,
    /// Of the whole run, warm-up included: a lie is a lie.
    pub(crate) wrong: Vec<String>,
    pub(crate) wrong_count: u64,
    pub(crate) sample: Sample<R>,
    /// Open loop, of the window.
    pub(crate) late: u64,
}

impl<R> Tally<R> {
    pub(crate) fn new(window: Window, kinds: usize, sample: usize) -> Self {
        Self {
            window,
            times: vec![Times::default(); kinds],
            operations: 0,
            units: 0,
            errors: BTreeMap::new(),
            wrong: Vec::new(),
            wrong_count: 0,
            sample: Sample::new(sample),
            late: 0,
        }
    }

    /// An operation that was to begin at `since` and has ended at `until`.
    pub(crate) fn ended(&mut self, since: Instant, until: Instant, ending: Result<Done<R>, Fault>) {
        let counts = self.window.has(since);
        match ending {
            Ok(done) => {
                if self.window.has(until) {
                    self.operations += 1;
                    self.units += done.units;
                }
                if counts {
                    self.times[done.kind].record(done.took.unwrap_or(until - since));
                }
                if let Some(receipt) = done.receipt {
                    self.sample.offer(receipt);
                }
            }
            Err(Fault::Code(code)) if counts => self.count(code),
            Err(Fault::Code(_)) => {}
            Err(Fault::Wrong(what)) => {
                self.wrong_count += 1;
                if self.wrong.len() < WRONG_TOLD_MAX {
                    self.wrong.push(what);
                }
                if counts {
                    self.count(WRONG.into());
                }
            }
        }
    }

    /// Open loop: an operation that was due at `due` starts now.
    pub(crate) fn started(&mut self, due: Instant, now: Instant) {
        if self.window.has(due) && now.saturating_duration_since(due) > LATE_AFTER {
            self.late += 1;
        }
    }

    fn count(&mut self, code: Cow<'static, str>) {
        let code = if self.errors.len() < CODES_MAX || self.errors.contains_key(&code) {
            code
        } else {
            "other".into()
        };
        *self.errors.entry(code).or_default() += 1;
    }
}
