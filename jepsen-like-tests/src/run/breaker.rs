//! Makes the faults of a plan on a cluster, heals each when its time is over, and lets the cluster rest in between.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::board::Board;
use super::plan::Plan;
use super::spells::{self, QUIET};
use crate::history::History;
use crate::nemesis::{Begun, Fault};
use crate::wait::eventually;
use crate::workloads::Stage;

/// A fault that takes longer to make, or to undo, is given up and told.
const MAKING_MAX: Duration = Duration::from_secs(60);
/// Before the first fault and after each round nothing is broken for so long.
const QUIET_TIME: Duration = Duration::from_secs(2);
/// Writes that must be acknowledged in each quiet time, and until when: an election and the restart of a node on
/// a busy machine are far within it.
const QUIET_WRITES: u64 = 20;
const QUIET_WITHIN: Duration = Duration::from_secs(60);
/// When no kind can be made at this moment, something is healing.
const AGAIN_AFTER: Duration = Duration::from_millis(250);

/// What is to be broken, until when.
pub struct Order {
    pub stage: Arc<Stage>,
    /// Those that are permitted here.
    pub faults: Vec<Arc<dyn Fault>>,
    pub plan: Plan,
    pub until: Instant,
    /// Becomes true when the run is to end early.
    pub stop: watch::Receiver<bool>,
    pub board: Arc<Board>,
}

/// What came of it, besides what the history says.
#[derive(Debug, Default)]
pub struct Broken {
    /// Faults that could not be made or undone, and why.
    pub troubles: Vec<String>,
    /// Times in which the cluster was to go on and did not.
    pub standstills: Vec<String>,
    /// How often each kind said "not at this moment".
    pub declined: BTreeMap<&'static str, u64>,
}

/// A fault that was undone: its number, its kind, and what went wrong.
type Healed = (u64, &'static str, Result<(), String>);

struct Breaker {
    order: Order,
    broken: Broken,
    /// The next number of a fault or a quiet time.
    next: u64,
    open: JoinSet<Healed>,
    kinds: BTreeMap<u64, &'static str>,
    /// Tells those that wait for their end that it is now.
    heal_now: watch::Sender<bool>,
}

/// Goes on until the time is over or the run is to stop; then everything is healed.
pub async fn break_things(order: Order) -> Broken {
    let mut breaker = Breaker {
        order,
        broken: Broken::default(),
        next: 0,
        open: JoinSet::new(),
        kinds: BTreeMap::new(),
        heal_now: watch::Sender::new(false),
    };
    breaker.quiet().await;
    while !breaker.is_over() {
        match breaker.order.faults.is_empty() {
            true => breaker.wait_until(breaker.order.until).await,
            false => breaker.turn().await,
        }
    }
    breaker.heal_now.send_replace(true);
    breaker.all_healed().await;
    // What comes after the last fault is of interest as well.
    if breaker.broken.standstills.is_empty() {
        breaker.quiet().await;
    }
    breaker.broken
}

impl Breaker {
    fn is_over(&self) -> bool {
        Instant::now() >= self.order.until || *self.order.stop.borrow() || !self.broken.standstills.is_empty()
    }

    async fn turn(&mut self) {
        if self.order.plan.round_is_over() {
            self.all_healed().await;
            self.order.plan.next_round();
            return self.quiet().await;
        }
        let pause = self.order.plan.pause();
        self.wait(pause).await;
        while self.open.len() >= self.order.plan.open_max() {
            let healed = self.open.join_next().await.expect("at least one is open");
            self.healed(healed);
        }
        if self.is_over() {
            return;
        }
        if !self.make_one().await {
            self.wait(AGAIN_AFTER).await;
        }
    }

    /// Waits, at most until the run is over, and takes note of what has healed meanwhile.
    async fn wait(&mut self, time: Duration) {
        self.wait_until((Instant::now() + time).min(self.order.until)).await;
    }

    async fn wait_until(&mut self, end: Instant) {
        let mut stop = self.order.stop.clone();
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(end.into()) => return,
                Ok(_) = stop.wait_for(|stop| *stop) => return,
                Some(healed) = self.open.join_next() => self.healed(healed),
            }
        }
    }

    /// Makes the rarest fault that can be made now.
    async fn make_one(&mut self) -> bool {
        for kind in self.order.plan.order() {
            let fault = self.order.faults[kind].clone();
            if self.kinds.values().any(|open| *open == fault.kind()) {
                continue;
            }
            let mut dice = self.order.plan.dice();
            let since_ns = self.history().now_ns();
            let begun = fault.begin(&self.order.stage.cluster, &mut dice);
            match tokio::time::timeout(MAKING_MAX, begun).await {
                Ok(Ok(Some(begun))) => {
                    self.order.plan.made(kind);
                    self.begun(fault.kind(), begun, since_ns);
                    return true;
                }
                Ok(Ok(None)) => *self.broken.declined.entry(fault.kind()).or_default() += 1,
                Ok(Err(error)) => self.trouble(format!("{} could not be made: {error:#}", fault.kind())),
                Err(_) => self.trouble(format!("{} was not made within {MAKING_MAX:?}", fault.kind())),
            }
        }
        false
    }

    fn begun(&mut self, kind: &'static str, begun: Begun, since_ns: u64) {
        let id = self.take_number();
        spells::begin(self.history(), kind, id, &begun.what, &begun.nodes, since_ns);
        self.order.board.begun(id, format!("{kind}: {}", begun.what));
        self.kinds.insert(id, kind);
        let mut heal_now = self.heal_now.subscribe();
        self.open.spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(begun.lasts) => {}
                // The sender is gone only when nobody waits for this task any more.
                _ = heal_now.wait_for(|now| *now) => {}
            }
            let healed = tokio::time::timeout(MAKING_MAX, begun.heal).await;
            let healed = match healed {
                Ok(healed) => healed.map_err(|error| format!("{error:#}")),
                Err(_) => Err(format!("not within {MAKING_MAX:?}")),
            };
            (id, kind, healed)
        });
    }

    fn healed(&mut self, healed: Result<Healed, tokio::task::JoinError>) {
        let (id, kind, result) = match healed {
            Ok(healed) => healed,
            Err(error) => return self.trouble(format!("a fault was not healed: {error}")),
        };
        spells::heal(self.history(), kind, id, result.as_ref().err().cloned());
        self.order.board.healed(id);
        self.kinds.remove(&id);
        if let Err(error) = result {
            self.trouble(format!("{kind} could not be healed: {error}"));
        }
    }

    async fn all_healed(&mut self) {
        while let Some(healed) = self.open.join_next().await {
            self.healed(healed);
        }
    }

    /// A time in which nothing is broken and the cluster must be seen to work.
    async fn quiet(&mut self) {
        let id = self.take_number();
        spells::begin(self.history(), QUIET, id, "", &[], self.history().now_ns());
        let history = self.order.stage.history.clone();
        let goal = history.ended().written + QUIET_WRITES;
        let progress = eventually(
            "writes are acknowledged while nothing is broken",
            QUIET_WITHIN,
            async || match history.ended().written {
                written if written >= goal => Ok(()),
                written => Err(format!("{} of {QUIET_WRITES}", written + QUIET_WRITES - goal)),
            },
        );
        let mut stop = self.order.stop.clone();
        let progress = tokio::select! {
            progress = progress => progress,
            Ok(_) = stop.wait_for(|stop| *stop) => Ok(()),
        };
        if let Err(error) = progress {
            self.broken.standstills.push(format!("{error:#}"));
        }
        self.wait_until(Instant::now() + QUIET_TIME).await;
        spells::heal(self.history(), QUIET, id, None);
    }

    fn history(&self) -> &History {
        &self.order.stage.history
    }

    fn take_number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    fn trouble(&mut self, what: String) {
        eprintln!("trouble: {what}");
        self.broken.troubles.push(what);
    }
}
