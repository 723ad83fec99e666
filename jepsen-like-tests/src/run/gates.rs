//! Whether a run says anything: one in which little happened, or nothing was broken, is inconclusive.

use std::collections::BTreeMap;

use serde::Serialize;

use super::measure::Measures;
use super::spells::{QUIET, Spell};

const NS: u64 = 1_000_000_000;
/// Each selected kind of fault must come so often, if the time allows it.
pub const TIMES: u64 = 3;
/// Before and after a fault operations are counted for so long.
const BESIDE_NS: u64 = 10 * NS;
/// A fault that is over at once still has consequences, an election for example: it is looked at for so long.
const DURING_NS_MIN: u64 = 5 * NS;
/// Writes acknowledged before, during and after the faults of each kind, all of them together.
const WRITES: u64 = 10;
/// In all.
const OPERATIONS: u64 = 100;
/// In percent of all operations.
const UNKNOWN_BELOW: u64 = 20;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gate {
    pub name: String,
    pub met: bool,
    /// What was looked at, with figures.
    pub why: String,
}

/// What the run was meant to be.
#[derive(Debug, Clone)]
pub struct Meant<'a> {
    pub nodes: u64,
    /// The kinds that were selected and can be made here.
    pub kinds: &'a [String],
    pub seconds: u64,
    pub every_ms: u64,
}

/// What each checker needed to judge, and how much of each there was.
pub type Judged<'a> = BTreeMap<&'a str, Vec<(&'static str, u64)>>;

/// Over what the history says alone.
pub fn gates(meant: &Meant, measures: &Measures, spells: &[Spell], judged: &Judged) -> Vec<Gate> {
    let mut gates = vec![enough(measures), unknown(measures)];
    for kind in meant.kinds {
        let of_kind: Vec<&Spell> = spells.iter().filter(|spell| spell.kind == *kind).collect();
        gates.push(times(meant, kind, of_kind.len() as u64));
        if !of_kind.is_empty() {
            gates.push(around(meant, kind, &of_kind, measures));
        }
    }
    if !meant.kinds.is_empty() {
        gates.push(quiet(spells, measures));
    }
    gates.extend(judged.iter().map(|(checker, counts)| something(checker, counts)));
    gates
}

fn something(checker: &str, counts: &[(&str, u64)]) -> Gate {
    let told: Vec<String> = counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
    Gate {
        name: format!("checker {checker} had something to judge"),
        met: counts.iter().all(|(_, count)| *count > 0),
        why: told.join(", "),
    }
}

fn enough(measures: &Measures) -> Gate {
    let ok = measures.total.ok;
    Gate {
        name: "enough operations".to_owned(),
        met: ok >= OPERATIONS,
        why: format!("{ok} succeeded, {OPERATIONS} are the least"),
    }
}

fn unknown(measures: &Measures) -> Gate {
    let (unknown, all) = (measures.total.unknown, measures.total.all());
    Gate {
        name: "few unknown outcomes".to_owned(),
        met: unknown * 100 < all.max(1) * UNKNOWN_BELOW,
        why: format!("{unknown} of {all} operations, less than {UNKNOWN_BELOW} % is asked for"),
    }
}

/// How often each kind must have come: three times, unless there was no time for it, and once in any case. Half of
/// the time is left to faults that last and to quiet times.
fn times_asked(meant: &Meant) -> u64 {
    let possible = meant.seconds * 1000 / meant.every_ms.max(1) / 2;
    (possible / meant.kinds.len().max(1) as u64).clamp(1, TIMES)
}

fn times(meant: &Meant, kind: &str, times: u64) -> Gate {
    let asked = times_asked(meant);
    let short = match asked < TIMES {
        true => format!("; the time is too short for {TIMES}"),
        false => String::new(),
    };
    Gate {
        name: format!("{kind} came often enough"),
        met: times >= asked,
        why: format!("{times} times, {asked} are asked for in {} s{short}", meant.seconds),
    }
}

fn around(meant: &Meant, kind: &str, spells: &[&Spell], measures: &Measures) -> Gate {
    let (mut before, mut during, mut after) = (0, 0, 0);
    for spell in spells {
        let begun = spell.begun_ns;
        let healed = spell
            .healed_ns
            .unwrap_or(u64::MAX - BESIDE_NS)
            .max(begun + DURING_NS_MIN);
        before += measures.written_between(begun.saturating_sub(BESIDE_NS), begun);
        during += measures.written_between(begun, healed);
        after += measures.written_between(healed, healed + BESIDE_NS);
    }
    // While a majority is broken nothing can be acknowledged, and nothing is asked for.
    let majority = meant.nodes / 2 + 1;
    let can_work = spells.iter().any(|spell| (spell.nodes.len() as u64) < majority);
    Gate {
        name: format!("writes before, during and after {kind}"),
        met: before >= WRITES && after >= WRITES && (during >= WRITES || !can_work),
        why: format!("{before} before, {during} during, {after} after; {WRITES} are the least"),
    }
}

fn quiet(spells: &[Spell], measures: &Measures) -> Gate {
    let times = spells.iter().filter(|spell| spell.kind == QUIET);
    let mut idle = 0;
    let mut all = 0;
    for spell in times {
        all += 1;
        let until = spell.healed_ns.unwrap_or(u64::MAX);
        idle += u64::from(measures.written_between(spell.begun_ns, until) == 0);
    }
    Gate {
        name: "progress in quiet times".to_owned(),
        met: all > 0 && idle == 0,
        why: format!("{all} quiet times, {idle} of them without an acknowledged write"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::measure::measure;
    use super::*;
    use crate::history::{Entry, History, Kind};

    /// A run of 100 seconds in which a write is acknowledged every tenth of a second, but where `stalls` says so.
    fn measures(stalls: impl Fn(u64) -> bool) -> Measures {
        let clock = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
        let shown = clock.clone();
        let history = History::by_clock(Box::new(move || shown.load(std::sync::atomic::Ordering::Relaxed)));
        for tenth in 0..1000 {
            clock.store(tenth * NS / 10, std::sync::atomic::Ordering::Relaxed);
            let process = history.new_client();
            history.record(process, Kind::Invoke, "send", Entry::default());
            let kind = if stalls(tenth) { Kind::Info } else { Kind::Ok };
            history.record(process, kind, "send", Entry::default());
        }
        measure(&history.events()).expect("well-formed")
    }

    fn spell(id: u64, kind: &str, nodes: &[u64], from: u64, to: u64) -> Spell {
        Spell {
            id,
            kind: kind.to_owned(),
            what: String::new(),
            nodes: nodes.to_vec(),
            begun_ns: from * NS,
            healed_ns: Some(to * NS),
            index: id,
        }
    }

    /// The names of the gates that were not met.
    fn missed(kinds: &[&str], measures: &Measures, spells: &[Spell], judged: u64) -> Vec<String> {
        let kinds: Vec<String> = kinds.iter().map(|kind| (*kind).to_owned()).collect();
        let meant = Meant {
            nodes: 3,
            kinds: &kinds,
            seconds: 100,
            every_ms: 2000,
        };
        let judged = BTreeMap::from([("rooms", vec![("reads", 7), ("acknowledged messages", judged)])]);
        let gates = gates(&meant, measures, spells, &judged);
        gates
            .into_iter()
            .filter(|gate| !gate.met)
            .map(|gate| gate.name)
            .collect()
    }

    fn three_kills() -> Vec<Spell> {
        let mut spells: Vec<Spell> = [20, 40, 60].map(|at| spell(at, "kill", &[1], at, at + 5)).to_vec();
        spells.push(spell(0, QUIET, &[], 1, 4));
        spells
    }

    #[test]
    fn a_run_in_which_enough_happened_meets_all() {
        assert_eq!(missed(&["kill"], &measures(|_| false), &three_kills(), 5), [""; 0]);
    }

    #[test]
    fn a_kind_that_came_too_seldom_or_never_is_told() {
        let spells = three_kills();
        let missed = missed(&["kill", "pause"], &measures(|_| false), &spells, 5);
        assert_eq!(missed, ["pause came often enough"]);
        let meant = |seconds, kinds: &'static [String]| Meant {
            nodes: 3,
            kinds,
            seconds,
            every_ms: 2000,
        };
        assert_eq!(times_asked(&meant(100, &[])), 3);
        assert_eq!(times_asked(&meant(3, &[])), 1);
        assert!(times(&meant(3, &[]), "kill", 1).why.contains("too short for 3"));
        assert!(!times(&meant(100, &[]), "kill", 3).why.contains("too short"));
    }

    #[test]
    fn nothing_acknowledged_during_a_fault_of_a_minority_is_told() {
        let stalled = |tenth: u64| {
            [200..250, 400..450, 600..650]
                .iter()
                .any(|stall| stall.contains(&tenth))
        };
        let measures = measures(stalled);
        let told = ["writes before, during and after kill"];
        assert_eq!(missed(&["kill"], &measures, &three_kills(), 5), told);
        // Of a majority nothing else is to be expected.
        let mut spells = three_kills();
        spells
            .iter_mut()
            .filter(|spell| spell.kind == "kill")
            .for_each(|spell| spell.nodes = vec![1, 2]);
        assert_eq!(missed(&["kill"], &measures, &spells, 5), [""; 0]);
    }

    #[test]
    fn too_much_unknown_is_told() {
        let told = missed(&["kill"], &measures(|tenth| tenth % 4 == 0), &three_kills(), 5);
        assert_eq!(told, ["few unknown outcomes"]);
    }

    #[test]
    fn a_quiet_time_without_progress_or_none_at_all_is_told() {
        let told = missed(
            &["kill"],
            &measures(|tenth| (10..40).contains(&tenth)),
            &three_kills(),
            5,
        );
        assert_eq!(told, ["progress in quiet times"]);
        let mut spells = three_kills();
        spells.retain(|spell| spell.kind != QUIET);
        let told = missed(&["kill"], &measures(|_| false), &spells, 5);
        assert_eq!(told, ["progress in quiet times"]);
    }

    #[test]
    fn a_checker_with_nothing_to_judge_and_a_run_without_operations_are_told() {
        let told = missed(&[], &Measures::default(), &[], 0);
        assert_eq!(told, ["enough operations", "checker rooms had something to judge"]);
    }
}
