//! A simulated cluster from its first start to its judgement.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quorate_storage::log::LogStore;
use quorate_storage::state::{MemoryState, StateStore};
use quorate_torture::checker::{self, streams};
use quorate_torture::history::{DRAIN, Entry, Event, History};
use raft_node::runtime::seed_this_thread;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use tempfile::TempDir;
use turmoil::Sim;

use crate::clients::{ROOMS, STREAM_ROOM, Stage, whole_room};
use crate::disk::SYNC_MS_MAX;
use crate::faults::{Cut, Drawn, Fault, LATENCY_MS_MAX, Situation, draw, link};
use crate::invariants::{Seen, Watch};
use crate::node::{Node, Order, host, member};
use crate::outcome::{Counts, Outcome};

const TICK: Duration = Duration::from_millis(1);
/// Before the first fault.
const BEGIN: Duration = Duration::from_secs(2);
/// From the end of the faults until all nodes must be the same again: elections and snapshots included.
const CONVERGE_WITHIN: Duration = Duration::from_secs(60);
/// Writes that must be answered when all is healed.
const WRITES_AFTER: u64 = 20;
/// An operator who has heard of no success asks again.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// Long enough for any simulation.
const DURATION_MAX: Duration = Duration::from_secs(1 << 20);

#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Simulated time with faults.
    pub seconds: u64,
    /// Three or five; none: as the seed says.
    pub nodes: Option<u64>,
}

/// Simulates the cluster of this seed.
pub fn run(seed: u64, settings: Settings) -> Outcome {
    seed_this_thread(seed);
    align_task_ids();
    let mut world = World::new(seed, settings);
    let ended = catch_unwind(AssertUnwindSafe(|| world.live()));
    let violation = match ended {
        Ok(Ok(())) => None,
        Ok(Err(violation)) => Some(violation),
        Err(panic) => Some(("panic".to_owned(), text_of(&*panic))),
    };
    if violation.is_some() {
        world.count();
        world.describe_nodes();
        world.write_down();
    }
    let World { trace, counts, .. } = world;
    Outcome {
        seed,
        counts,
        violation,
        trace,
    }
}

/// tokio numbers the tasks of a process, and when a runtime is dropped its tasks are, in an order that depends on
/// the last bits of their numbers; whoever is dropped first says its last words first. So that a seed is the same
/// run wherever in a process it comes, its tasks begin at a round number.
fn align_task_ids() {
    const ALIGNED_TO: u64 = 1 << 10;
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.expect("a runtime without drivers needs nothing of the system");
    let next = || {
        let id = runtime.spawn(async {}).id().to_string();
        id.parse::<u64>().expect("tokio shows the number of a task")
    };
    while !next().is_multiple_of(ALIGNED_TO) {}
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic")
        .to_owned()
}

/// Which checker found it, and what.
type Violation = (String, String);

/// What ends at a time.
enum Due {
    Restart(u64),
    Mend {
        cut: Cut,
        one: Vec<u64>,
        other: Vec<u64>,
    },
    AskForWanted,
    /// Unless it was made slower anew: with the number of the fault.
    HealDisk {
        node: u64,
        fault: u64,
    },
    HealNetwork {
        fault: u64,
    },
}

struct World {
    seed: u64,
    settings: Settings,
    dice: ChaCha8Rng,
    sim: Sim<'static>,
    /// When the step under way has begun, for the history.
    time_ns: Arc<AtomicU64>,
    dir: TempDir,
    stage: Arc<Stage>,
    nodes: BTreeMap<u64, Arc<Node>>,
    running: BTreeSet<u64>,
    /// Crashed and never to be started again, or removed.
    gone: BTreeSet<u64>,
    /// A node that is to be added, and whose place it takes.
    wanted: Option<(u64, Option<u64>)>,
    broken: BTreeMap<(u64, u64), Cut>,
    due: BTreeMap<(Duration, u64), Due>,
    /// The last fault of each kind, by its number, so that an earlier one does not end it.
    slow_disks: BTreeMap<u64, u64>,
    slow_network: u64,
    watch: Watch,
    /// Everybody who has led, by term.
    leaders: BTreeSet<(u64, u64)>,
    /// Of them, those who led after the last step.
    leading: BTreeSet<(u64, u64)>,
    installed: BTreeMap<u64, Option<quorate_storage::log::LogId>>,
    counts: Counts,
    /// Numbers what is due, and the faults.
    number: u64,
    trace: String,
}

impl World {
    fn new(seed: u64, settings: Settings) -> Self {
        let mut dice = ChaCha8Rng::seed_from_u64(seed);
        let size = settings
            .nodes
            .unwrap_or_else(|| if dice.random_bool(0.5) { 3 } else { 5 });
        let mut builder = turmoil::Builder::new();
        builder
            .rng_seed(dice.random())
            .enable_random_order()
            .simulation_duration(DURATION_MAX)
            .tick_duration(TICK)
            .min_message_latency(TICK)
            .max_message_latency(Duration::from_millis(LATENCY_MS_MAX))
            .tcp_capacity(1 << 16);
        // The nodes of a step run one after the other, each through the whole of it: within a step there is no
        // before and after.
        let time_ns = Arc::new(AtomicU64::new(0));
        let clock = {
            let time_ns = time_ns.clone();
            move || time_ns.load(Ordering::Relaxed)
        };
        let mut world = Self {
            seed,
            settings,
            dice,
            sim: builder.build(),
            time_ns,
            dir: tempfile::Builder::new()
                .prefix("quorate-simulate-")
                .tempdir()
                .expect("a temporary folder can be made"),
            stage: Stage::new(History::by_clock(Box::new(clock))),
            nodes: BTreeMap::new(),
            running: BTreeSet::new(),
            gone: BTreeSet::new(),
            wanted: None,
            broken: BTreeMap::new(),
            due: BTreeMap::new(),
            slow_disks: BTreeMap::new(),
            slow_network: 0,
            watch: Watch::new(),
            leaders: BTreeSet::new(),
            leading: BTreeSet::new(),
            installed: BTreeMap::new(),
            counts: Counts::default(),
            number: 0,
            trace: String::new(),
        };
        let members: Vec<u64> = (1..=size).collect();
        for id in 1..=size {
            world.add_host(id, &members);
        }
        world
    }

    fn add_host(&mut self, id: u64, listed: &[u64]) {
        let members = listed.iter().map(|id| member(*id)).collect();
        let dir = self.dir.path().join(host(id));
        let node = Node::new(id, self.seed, dir, members, self.stage.clone());
        self.nodes.insert(id, node.clone());
        self.running.insert(id);
        self.sim.host(host(id), move || node.clone().run());
    }

    fn live(&mut self) -> Result<(), Violation> {
        let end = BEGIN + Duration::from_secs(self.settings.seconds);
        let mut next_fault = BEGIN;
        while self.sim.elapsed() < end {
            self.step()?;
            if self.sim.elapsed() >= next_fault {
                next_fault = self.sim.elapsed() + self.break_something();
            }
        }
        self.heal();
        self.converge()?;
        self.count();
        self.judge()
    }

    fn count(&mut self) {
        self.counts.simulated = self.sim.elapsed();
        self.counts.operations = self.stage.answered();
    }

    /// Where each node stands, for who looks for a cause.
    fn describe_nodes(&mut self) {
        for node in self.nodes.values() {
            let log = node.disk().log.state();
            let state = match node.core() {
                Some(core) => format!(
                    "{:?}, applied {:?}, members {:?}",
                    core.raft_state(),
                    core.applied.borrow().log_id.map(|id| id.index),
                    core.book.members().into_keys().collect::<Vec<_>>()
                ),
                None => format!("down, gone: {}", self.gone.contains(&node.id)),
            };
            let _ = writeln!(self.trace, "{}: {log:?}; {state}", node.host());
        }
    }

    fn step(&mut self) -> Result<(), Violation> {
        let now_ns = u64::try_from(self.sim.elapsed().as_nanos()).expect("no simulation takes 584 years");
        self.time_ns.store(now_ns, Ordering::Relaxed);
        if let Err(error) = self.sim.step() {
            return Err(("a node that does not start".to_owned(), error.to_string()));
        }
        while let Some((&(time, number), _)) = self.due.first_key_value()
            && time <= self.sim.elapsed()
        {
            let due = self.due.remove(&(time, number)).expect("it was just there");
            self.end(due);
        }
        self.bury_the_ended()?;
        let of_cluster = self.nodes.values().map(|node| &**node);
        let seen = match self.watch.look(of_cluster) {
            Ok(seen) => seen,
            Err(what) => return Err(split(what)),
        };
        let leads = |node: &Seen| Some((node.leads?, node.id));
        self.leading = seen.values().filter_map(leads).collect();
        for node in seen.values() {
            if let Some(term) = node.leads
                && self.leaders.insert((term, node.id))
            {
                self.counts.elections += 1;
                let core = self.nodes.get(&node.id).and_then(|node| node.core());
                if core.is_some_and(|core| core.failover.is_failover(term)) {
                    self.counts.failovers += 1;
                }
                let _ = writeln!(
                    self.trace,
                    "{:?} node {} leads term {term}",
                    self.sim.elapsed(),
                    node.id
                );
            }
            let installed = node.state().installed();
            if self.installed.insert(node.id, installed) != Some(installed) && installed.is_some() {
                self.counts.snapshots_installed += 1;
                let _ = writeln!(
                    self.trace,
                    "{:?} node {} installed {installed:?}",
                    self.sim.elapsed(),
                    node.id
                );
            }
        }
        match self.stage.violations().first() {
            Some(what) => Err(("answers".to_owned(), what.clone())),
            None => Ok(()),
        }
    }

    /// A node that was removed ends. Nothing else that a simulation does to a node is a reason to end.
    fn bury_the_ended(&mut self) -> Result<(), Violation> {
        for node in self.nodes.values() {
            let Some(reason) = node.take_ended() else { continue };
            if !self.running.contains(&node.id) {
                continue;
            }
            if !reason.contains("was removed from the cluster") {
                return Err(("a node that ends".to_owned(), format!("node {}: {reason}", node.id)));
            }
            let _ = writeln!(self.trace, "{:?} node {} was removed", self.sim.elapsed(), node.id);
            self.gone.insert(node.id);
            self.running.remove(&node.id);
            self.sim.crash(node.host());
            node.forget_process();
        }
        Ok(())
    }

    /// Who leads now, by its own account, in the greatest term if there are several.
    fn leader(&self) -> Option<u64> {
        let leads = |(term, id): &&(u64, u64)| self.leading.contains(&(*term, *id));
        self.leaders.iter().rev().find(leads).map(|(_, id)| *id)
    }

    /// Breaks something, perhaps; answers how long to wait before the next.
    fn break_something(&mut self) -> Duration {
        let members = self.members();
        let situation = Situation {
            running: self.running.intersection(&members).copied().collect(),
            // An operator changes one thing at a time, and nothing while a node is down.
            may_change: self.wanted.is_none() && members.is_subset(&self.running),
            members: members.difference(&self.gone).copied().collect(),
            broken: self.broken.clone(),
            leader: self.leader(),
        };
        let Drawn { fault, lasts, pause } = draw(&mut self.dice, &situation);
        if let Some(fault) = fault {
            let _ = writeln!(self.trace, "{:?} {fault} for {lasts:?}", self.sim.elapsed());
            *self.counts.faults.entry(fault.kind()).or_default() += 1;
            self.make(fault, lasts);
        }
        pause
    }

    /// Members, as the log of the leader has them, or that of somebody if nobody leads.
    fn members(&self) -> BTreeSet<u64> {
        let of = |node: &Arc<Node>| {
            let core = node.core()?;
            Some(core.book.members().into_keys().collect::<BTreeSet<u64>>())
        };
        let leader = self.leader().and_then(|id| of(&self.nodes[&id]));
        leader.or_else(|| self.nodes.values().find_map(of)).unwrap_or_default()
    }

    fn make(&mut self, fault: Fault, lasts: Duration) {
        match fault {
            Fault::Crash { nodes } => nodes.iter().for_each(|id| self.crash(*id, Some(lasts))),
            Fault::PowerLoss { nodes } => {
                for id in nodes {
                    // Nobody hears the last words of its connections.
                    let others: Vec<u64> = self
                        .nodes
                        .keys()
                        .copied()
                        .filter(|other| self.is_whole(id, *other))
                        .collect();
                    self.cut(Cut::Drop, &[id], &others);
                    self.crash(id, Some(lasts));
                    self.mend(Cut::Drop, &[id], &others);
                }
            }
            Fault::Partition { cut, one, other } => {
                self.cut(cut, &one, &other);
                for (a, b) in pairs(&one, &other) {
                    self.broken.insert(link(a, b), cut);
                }
                self.later(lasts, Due::Mend { cut, one, other });
            }
            Fault::SlowDisk { node, sync_ms_max } => {
                self.nodes[&node].speed.set(sync_ms_max);
                let fault = self.number + 1;
                self.slow_disks.insert(node, fault);
                self.later(lasts, Due::HealDisk { node, fault });
            }
            Fault::SlowNetwork { latency_ms_max } => {
                self.sim.set_max_message_latency(Duration::from_millis(latency_ms_max));
                let fault = self.number + 1;
                self.slow_network = fault;
                self.later(lasts, Due::HealNetwork { fault });
            }
            Fault::ClockJump { node, by_ms } => self.nodes[&node].wall.jump(by_ms),
            Fault::Snapshot { node } => self.nodes[&node].order(Order::Snapshot),
            Fault::Transfer => {
                if let Some(leader) = self.leader() {
                    self.nodes[&leader].order(Order::Transfer);
                }
            }
            Fault::AddNode => self.add_node(None),
            Fault::RemoveNode { node } => {
                if let Some(leader) = self.leader() {
                    self.nodes[&leader].order(Order::Remove { id: node });
                }
            }
            Fault::ReplaceNode { node } => {
                self.crash(node, None);
                self.gone.insert(node);
                self.add_node(Some(node));
            }
        }
    }

    /// Starts a new node and wants it in the cluster.
    fn add_node(&mut self, replaces: Option<u64>) {
        let id = self.nodes.last_key_value().map_or(1, |(id, _)| id + 1);
        let mut listed: Vec<u64> = self.members().into_iter().collect();
        listed.push(id);
        self.add_host(id, &listed);
        self.wanted = Some((id, replaces));
        self.ask_for_wanted();
    }

    /// Asks the leader again and again for what is wanted of the membership, as an operator does.
    fn ask_for_wanted(&mut self) {
        let Some((id, replaces)) = self.wanted else { return };
        if let Some(leader) = self.leader() {
            let members = self.members();
            if members.contains(&id) && replaces.is_none_or(|old| !members.contains(&old)) {
                self.wanted = None;
                return;
            }
            self.nodes[&leader].order(Order::Add { id, replaces });
        }
        self.later(ASK_AGAIN_AFTER, Due::AskForWanted);
    }

    fn crash(&mut self, id: u64, restart_after: Option<Duration>) {
        if !self.running.remove(&id) {
            return;
        }
        self.sim.crash(host(id));
        self.nodes[&id].forget_process();
        if let Some(after) = restart_after {
            self.later(after, Due::Restart(id));
        }
    }

    fn later(&mut self, after: Duration, due: Due) {
        self.number += 1;
        self.due.insert((self.sim.elapsed() + after, self.number), due);
    }

    fn end(&mut self, due: Due) {
        match due {
            Due::Restart(id) => {
                if !self.gone.contains(&id) && self.running.insert(id) {
                    self.sim.bounce(host(id));
                }
            }
            Due::Mend { cut, one, other } => {
                self.mend(cut, &one, &other);
                for (a, b) in pairs(&one, &other) {
                    self.broken.remove(&link(a, b));
                }
            }
            Due::AskForWanted => self.ask_for_wanted(),
            Due::HealDisk { node, fault } => {
                if self.slow_disks.get(&node) == Some(&fault) {
                    self.nodes[&node].speed.set(SYNC_MS_MAX);
                }
            }
            Due::HealNetwork { fault } => {
                if self.slow_network == fault {
                    self.sim.set_max_message_latency(Duration::from_millis(LATENCY_MS_MAX));
                }
            }
        }
    }

    fn cut(&self, cut: Cut, one: &[u64], other: &[u64]) {
        for (a, b) in pairs(one, other).map(|(a, b)| (host(a), host(b))) {
            match cut {
                Cut::Hold => self.sim.hold(a, b),
                Cut::Drop => self.sim.partition(a, b),
                Cut::OneWay => self.sim.partition_oneway(a, b),
            }
        }
    }

    fn mend(&self, cut: Cut, one: &[u64], other: &[u64]) {
        for (a, b) in pairs(one, other).map(|(a, b)| (host(a), host(b))) {
            match cut {
                Cut::Hold => self.sim.release(a, b),
                Cut::Drop => self.sim.repair(a, b),
                Cut::OneWay => self.sim.repair_oneway(a, b),
            }
        }
    }

    /// Whether the link between two different nodes is not broken.
    fn is_whole(&self, a: u64, b: u64) -> bool {
        a != b && !self.broken.contains_key(&link(a, b))
    }

    fn heal(&mut self) {
        let _ = writeln!(self.trace, "{:?} healing", self.sim.elapsed());
        for due in std::mem::take(&mut self.due).into_values() {
            self.end(due);
        }
    }

    /// Steps until all members have applied the same and nobody waits, then stops the clients and does it again.
    fn converge(&mut self) -> Result<(), Violation> {
        self.until("somebody leads", |world| world.leader().is_some())?;
        let before = self.stage.writes();
        self.until("writes are answered", |world| {
            world.stage.writes() >= before + WRITES_AFTER
        })?;
        self.stage.stop();
        self.until("the wanted change of the membership is made", |world| {
            world.wanted.is_none()
        })?;
        self.until("all members have applied the same", Self::are_level)
    }

    fn until(&mut self, what: &str, reached: impl Fn(&Self) -> bool) -> Result<(), Violation> {
        let end = self.sim.elapsed() + CONVERGE_WITHIN;
        while !reached(self) {
            if self.sim.elapsed() >= end {
                return Err(("convergence".to_owned(), format!("in vain was waited until {what}")));
            }
            self.step()?;
        }
        Ok(())
    }

    fn are_level(&self) -> bool {
        let Some(leader) = self.leader() else { return false };
        let Some(core) = self.nodes[&leader].core() else {
            return false;
        };
        let log_end = self.nodes[&leader].disk().log.durable_state().last;
        let voters: BTreeSet<u64> = core.raft.voter_ids().collect();
        voters.iter().all(|id| {
            let applied = self.nodes[id].core().and_then(|core| core.applied.borrow().log_id);
            applied.is_some() && applied == log_end
        })
    }

    fn judge(&mut self) -> Result<(), Violation> {
        let leader = self.leader().expect("a leader was waited for");
        let core = self.nodes[&leader].core().expect("it runs");
        let voters: BTreeSet<u64> = core.raft.voter_ids().collect();
        drop(core);
        let mut hashes = BTreeMap::new();
        for id in &voters {
            let state = self.nodes[id].disk().state;
            hashes.insert(*id, state.state_hash().map_err(|error| split(error.to_string()))?);
            self.drain(*id, &state);
        }
        let events = self.write_down();
        let _ = writeln!(self.trace, "{hashes:x?}\n{}", self.counts);
        if hashes.values().any(|hash| Some(hash) != hashes.values().next()) {
            return Err(("state hashes".to_owned(), format!("{hashes:x?}")));
        }
        for checker in checker::all() {
            let judged = checker.check(&events);
            let judgement = judged.map_err(|error| (checker.name().to_owned(), format!("cannot judge: {error:#}")))?;
            let _ = writeln!(self.trace, "{}: {:?}", checker.name(), judgement.counts);
            if let Some(first) = judgement.violations.first() {
                return Err((
                    checker.name().to_owned(),
                    format!("{first} ({} in all)", judgement.violations_total),
                ));
            }
        }
        Ok(())
    }

    fn write_down(&mut self) -> Vec<Event> {
        let events = self.stage.history.events();
        for event in &events {
            let line = serde_json::to_string(event).expect("an event has string keys only");
            let _ = writeln!(self.trace, "{line}");
        }
        events
    }

    /// Writes down all rooms as the node's state has them.
    fn drain(&self, node: u64, state: &MemoryState) {
        let rooms = ROOMS.map(|room| (DRAIN, room));
        for (f, room) in rooms.into_iter().chain([(streams::DRAIN, STREAM_ROOM)]) {
            let begun = Entry {
                key: Some(room.to_owned()),
                node: Some(node),
                ..Entry::default()
            };
            self.stage.begin(f, begun).ok(Entry {
                value: Some(json!(whole_room(state, room))),
                ..Entry::default()
            });
        }
    }
}

/// `name: what`.
fn split(what: String) -> Violation {
    match what.split_once(": ") {
        Some((name, what)) => (name.to_owned(), what.to_owned()),
        None => ("the simulation".to_owned(), what),
    }
}

fn pairs<'a>(one: &'a [u64], other: &'a [u64]) -> impl Iterator<Item = (u64, u64)> + 'a {
    one.iter().flat_map(move |a| other.iter().map(move |b| (*a, *b)))
}
