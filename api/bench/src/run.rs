//! The two loops, and a run from its warm-up to what was read back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::live::Live;
use crate::plan::{Load, Plan};
use crate::read_back::read_back;
use crate::report::{OpenLoop, Report};
use crate::tally::{NO_ANSWER, Tally, Window};
use crate::target::{Call, Fault, Target};

/// Closed loop: a client whose operation failed waits so long, or a node that refuses connections would be
/// asked some 100,000 times a second, and the machine had nothing left for those that answer.
const PAUSE_AFTER_FAULT: Duration = Duration::from_millis(10);

/// Drives the target by the plan, and reads back a sample of what it acknowledged.
///
/// # Panics
/// If the plan is not one that [`Plan::check`] accepts, or a call of the target panics.
pub async fn run<T: Target>(target: Arc<T>, plan: Plan, live: Arc<Live>) -> Report {
    plan.check().expect("the plan was checked");
    let start = Instant::now();
    let begin = start + plan.warm_up;
    let window = Window {
        begin,
        end: begin + plan.duration,
    };
    let work = Arc::new(Work {
        tally: Mutex::new(Tally::new(window, target.kinds().len(), plan.sample)),
        next: AtomicU64::new(0),
        started: AtomicU64::new(0),
        target,
        plan,
        live,
        start,
        end: window.end,
    });
    let mut clients = JoinSet::new();
    for client in 0..plan.load.clients() {
        let work = work.clone();
        clients.spawn(async move {
            match work.plan.load {
                Load::Closed { clients } => work.closed(client, clients).await,
                Load::Open { per_second, .. } => work.open(client, per_second).await,
            }
        });
    }
    // Each ends by itself: at the end of the window, or `answer_within` later at most.
    clients.join_all().await;
    let work = Arc::into_inner(work).expect("all clients have ended");
    work.report().await
}

struct Work<T: Target> {
    target: Arc<T>,
    plan: Plan,
    live: Arc<Live>,
    start: Instant,
    end: Instant,
    /// Held for one record, never across an await.
    tally: Mutex<Tally<T::Receipt>>,
    /// Open loop: the next operation to start, and how many have.
    next: AtomicU64,
    started: AtomicU64,
}

impl<T: Target> Work<T> {
    async fn closed(&self, client: usize, clients: usize) {
        for turn in 0.. {
            let begun = Instant::now();
            if begun >= self.end {
                return;
            }
            let number = turn * clients as u64 + client as u64;
            if !self.perform(Call { client, number }, begun, begun).await {
                sleep(PAUSE_AFTER_FAULT).await;
            }
        }
    }

    /// Takes whichever operation is due next. All others being under way, it may be overdue.
    async fn open(&self, client: usize, per_second: f64) {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let due = self.start + due_after(number, per_second);
            if due >= self.end {
                return;
            }
            sleep_until(due).await;
            let now = Instant::now();
            // What is due now and has not started will not be: `report` counts it.
            if now >= self.end {
                return;
            }
            self.started.fetch_add(1, Ordering::Relaxed);
            self.tally().started(due, now);
            self.perform(Call { client, number }, due, now).await;
        }
    }

    /// Returns whether it was answered well.
    async fn perform(&self, call: Call, since: Instant, begun: Instant) -> bool {
        let answer = timeout_at(begun + self.plan.answer_within, self.target.perform(call)).await;
        let ending = answer.unwrap_or_else(|_| Err(Fault::code(NO_ANSWER)));
        let until = Instant::now();
        let good = ending.is_ok();
        match &ending {
            Ok(done) => self.live.done(done.units),
            Err(_) => self.live.failed(),
        }
        self.tally().ended(since, until, ending);
        good
    }

    fn tally(&self) -> MutexGuard<'_, Tally<T::Receipt>> {
        self.tally.lock().expect("no holder of the tally panics")
    }

    async fn report(self) -> Report {
        let open = match self.plan.load {
            Load::Closed { .. } => None,
            Load::Open { per_second, .. } => {
                let due = due_until(self.end - self.start, per_second);
                Some(OpenLoop {
                    per_second_due: per_second,
                    late_starts: self.tally().late,
                    not_started: due - self.started.load(Ordering::Relaxed),
                })
            }
        };
        let mut tally = self.tally.into_inner().expect("no holder of the tally panics");
        let receipts = std::mem::replace(&mut tally.sample, crate::sample::Sample::new(0)).into_kept();
        let mut found = read_back(&*self.target, &receipts).await;
        found.add_lies(tally.wrong_count, std::mem::take(&mut tally.wrong));
        Report::new(self.target.kinds(), &self.plan, &tally, open, found)
    }
}

/// When operation `number` is due after the start of the load.
fn due_after(number: u64, per_second: f64) -> Duration {
    Duration::from_secs_f64(number as f64 / per_second)
}

/// How many operations are due before `time`.
fn due_until(time: Duration, per_second: f64) -> u64 {
    let mut count = (time.as_secs_f64() * per_second).ceil() as u64;
    // The same rounding as that of `due_after`, which decides.
    while due_after(count, per_second) < time {
        count += 1;
    }
    while count > 0 && due_after(count - 1, per_second) >= time {
        count -= 1;
    }
    count
}

#[cfg(test)]
mod tests;
