//! Registers and rooms once more, judged by a search that knows nothing of the sweeps: windows of the history are
//! handed to a general linearizability checker.
//!
//! A window of one register or room begins and ends at a moment at which none of its operations is open, so nothing
//! reaches from one into another but the state, which is carried over. A room is taken as a register whose rev is its
//! last seq.
//!
//! The search takes longer than all sweeps together, and for ever in bad luck, so it has bounds: of a long history
//! it is given windows spread over all of it, and none that has no moment to cut for too long; one that it does not
//! decide in time is undecided. All of that is counted and told. When more than half of the windows that it
//! searched are undecided, or more than `UNDECIDED_MAX` of them, the history is inconclusive.
//!
//! Reads the operations of [`super::register`], and `send`, `read` and `drain` of rooms.

mod model;
mod sources;

#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use anyhow::{Result, ensure};
use porcupine_rs::{CheckResult, Operation, check_operations_timeout};

use self::model::{Model, Op, State};
use self::sources::{Timed, of_registers, of_rooms};
use super::{Checker, Judgement};
use crate::history::Event;

/// Operations of one window, unless there is no moment to cut for longer. The search keeps a set of bits as long as the
/// window for each step, so longer windows take more memory and time for nothing.
const WINDOW_OPERATIONS: usize = 200;
/// A window longer than this is left to the sweeps.
const WINDOW_OPERATIONS_MAX: usize = 1000;
/// How long the search of one window may take. One without many unknown outcomes takes well below a millisecond.
const WINDOW_TIMEOUT: Duration = Duration::from_secs(1);
/// Windows that are searched, of a history that has more of them: some seconds' work.
const SEARCHES_MAX: usize = 5000;
/// With so many undecided ones nothing can be said of the history, and looking on would take hours.
const UNDECIDED_MAX: u64 = 20;

#[derive(Debug, Clone, Copy, Default)]
pub struct Windows;

impl Checker for Windows {
    fn name(&self) -> &'static str {
        "windows"
    }

    fn about(&self) -> &'static str {
        "registers and rooms are linearizable, by a general search over windows of the history"
    }

    fn needs(&self) -> &'static [&'static str] {
        &["windows"]
    }

    fn check(&self, events: &[Event]) -> Result<Judgement> {
        let mut windows = Vec::new();
        for (name, operations) in of_registers(events)? {
            cut(&format!("register {name}"), operations, &mut windows);
        }
        for (name, operations) in of_rooms(events)? {
            cut(&format!("room {name}"), operations, &mut windows);
        }
        let all = windows.len();
        windows.retain(|window| window.operations.len() <= WINDOW_OPERATIONS_MAX);
        let too_long = all - windows.len();
        let step = windows.len().div_ceil(SEARCHES_MAX).max(1);
        let mut judgement = Judgement::default();
        let (mut searched, mut operations, mut undecided) = (0_u64, 0_u64, 0);
        for window in windows.iter().step_by(step) {
            searched += 1;
            operations += window.operations.len() as u64;
            match search(window) {
                CheckResult::Ok => {}
                CheckResult::Illegal => {
                    judgement.violation(format_args!("not linearizable: no order explains {window}"))
                }
                CheckResult::Unknown => undecided += 1,
            }
            ensure!(undecided <= UNDECIDED_MAX, "{}", too_few(undecided, searched));
        }
        ensure!(is_decided(undecided, searched), "{}", too_few(undecided, searched));
        judgement.counts.insert("windows", searched);
        judgement.counts.insert("operations", operations);
        judgement.counts.insert("undecided windows", undecided);
        judgement.counts.insert("windows too long to search", too_long as u64);
        judgement
            .counts
            .insert("windows left out", windows.len() as u64 - searched);
        Ok(judgement)
    }
}

/// Whether the search has decided at least half of what it was given, so that its answer says something.
fn is_decided(undecided: u64, searched: u64) -> bool {
    undecided * 2 <= searched
}

fn too_few(undecided: u64, searched: u64) -> String {
    format!("{undecided} windows of {searched} could not be decided within {WINDOW_TIMEOUT:?} each")
}

/// Operations of one register or room that reach neither into what was before them nor into what comes after.
struct Window {
    of: String,
    /// What is there when it begins.
    state: State,
    operations: Vec<Timed>,
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { of, operations, .. } = self;
        let (first, last) = (operations[0].index, operations[operations.len() - 1].index);
        write!(
            f,
            "the {} operations of {of} from event {first} to event {last}",
            operations.len()
        )
    }
}

/// All windows of one register or room.
fn cut(of: &str, mut operations: Vec<Timed>, windows: &mut Vec<Window>) {
    operations.sort_by_key(|operation| (operation.invoke_ns, operation.index));
    let mut state = State::default();
    let mut rest = operations.as_slice();
    while !rest.is_empty() {
        let (window, after) = rest.split_at(window_end(rest));
        rest = after;
        windows.push(Window {
            of: of.to_owned(),
            state,
            operations: window.to_vec(),
        });
        // Each write says its rev, so the last one is known whatever the search finds.
        let writes = window.iter().filter_map(|timed| timed.op.written());
        state = writes.chain([state]).max_by_key(|state| state.rev).unwrap_or(state);
    }
}

/// How many of the operations, which begin in this order, make one window.
fn window_end(operations: &[Timed]) -> usize {
    let mut open_until = 0;
    for (count, operation) in operations.iter().enumerate() {
        let is_quiet = operation.invoke_ns > open_until;
        if is_quiet && count >= WINDOW_OPERATIONS {
            return count;
        }
        open_until = open_until.max(operation.complete_ns);
    }
    operations.len()
}

fn search(window: &Window) -> CheckResult {
    let time = |ns: u64| i64::try_from(ns).unwrap_or(i64::MAX);
    let operation = |call: i64, ret: i64, op: Op| Operation::<Model> {
        client_id: None,
        call_time: call,
        return_time: ret,
        op,
        metadata: None,
    };
    // The model begins with nothing; what is there already is the first operation's doing.
    let mut history = vec![operation(-2, -1, Op::Begin(window.state))];
    history.extend(
        window
            .operations
            .iter()
            .map(|timed| operation(time(timed.invoke_ns), time(timed.complete_ns), timed.op)),
    );
    check_operations_timeout(&history, WINDOW_TIMEOUT)
}
