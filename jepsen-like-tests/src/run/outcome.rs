//! What came of a run: what is to be told, written down and turned into an exit code.

use std::collections::BTreeMap;

use serde::Serialize;

use super::gates::Gate;
use super::measure::Measures;
use super::settings::Settings;
use super::spells::Spell;
use crate::checker::Verdict;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Conclusion {
    Passed,
    Failed,
    Inconclusive,
}

impl Conclusion {
    /// A failure is one, whatever else is in doubt.
    pub fn of(failures: usize, doubts: usize) -> Self {
        match (failures, doubts) {
            (0, 0) => Self::Passed,
            (0, _) => Self::Inconclusive,
            _ => Self::Failed,
        }
    }

    /// 2 is for a command line that makes no sense.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Passed => 0,
            Self::Failed => 1,
            Self::Inconclusive => 3,
        }
    }
}

/// All faults of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct OfKind {
    pub times: u64,
    /// How often each node was among those concerned.
    pub nodes: BTreeMap<u64, u64>,
    /// The longest time without an acknowledged write from the beginning of one until some time after it.
    pub longest_without_write_ms: u64,
}

#[derive(Debug, Serialize)]
pub struct Outcome {
    pub conclusion: Conclusion,
    /// In one line.
    pub headline: String,
    /// What broke a promise: each alone fails the run.
    pub failures: Vec<String>,
    /// Why the run does not say what it was to say.
    pub doubts: Vec<String>,
    /// Requested kinds of faults that cannot be made here, and why.
    pub skipped: BTreeMap<String, String>,
    pub faults: BTreeMap<String, OfKind>,
    /// How often each kind was not to be made at the moment.
    pub declined: BTreeMap<&'static str, u64>,
    /// From the end of the faults until all nodes were equal; none if they never were.
    pub converged_ms: Option<u64>,
    pub verdicts: Vec<Verdict>,
    pub gates: Vec<Gate>,
    pub measures: Measures,
    pub settings: Settings,
    pub replay: String,
    /// Of this program and of the product.
    pub versions: BTreeMap<&'static str, String>,
}

/// What the headline says: never that something is proved.
pub fn headline(
    conclusion: Conclusion,
    failures: &[String],
    doubts: &[String],
    operations: u64,
    spells: &[Spell],
) -> String {
    let kinds: std::collections::BTreeSet<&str> = spells.iter().map(|spell| spell.kind.as_str()).collect();
    let extent = format!(
        "{operations} operations and {} faults of {} kinds",
        spells.len(),
        kinds.len()
    );
    match conclusion {
        Conclusion::Passed => format!("no violation in {extent}"),
        Conclusion::Failed => format!("failed, in {extent}: {}", failures.first().map_or("", String::as_str)),
        Conclusion::Inconclusive => format!(
            "inconclusive, no violation in {extent}: {}",
            doubts.first().map_or("", String::as_str)
        ),
    }
}

/// The faults by their kinds.
pub fn by_kind(spells: &[Spell], measures: &Measures) -> BTreeMap<String, OfKind> {
    let mut kinds: BTreeMap<String, OfKind> = BTreeMap::new();
    for spell in spells {
        let kind = kinds.entry(spell.kind.clone()).or_default();
        kind.times += 1;
        for node in &spell.nodes {
            *kind.nodes.entry(*node).or_default() += 1;
        }
        let gap_ms = measures.gap_ns(spell) / 1_000_000;
        kind.longest_without_write_ms = kind.longest_without_write_ms.max(gap_ms);
    }
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_outweighs_doubts_and_a_doubt_is_no_pass() {
        assert_eq!(Conclusion::of(0, 0).exit_code(), 0);
        assert_eq!(Conclusion::of(1, 0).exit_code(), 1);
        assert_eq!(Conclusion::of(1, 1).exit_code(), 1);
        assert_eq!(Conclusion::of(0, 1).exit_code(), 3);
    }

    #[test]
    fn the_headline_says_how_much_was_tried() {
        let spell = Spell {
            id: 0,
            kind: "kill".to_owned(),
            what: String::new(),
            nodes: vec![],
            begun_ns: 0,
            healed_ns: None,
            index: 0,
        };
        let of = |conclusion| {
            headline(
                conclusion,
                &["lost".to_owned()],
                &["skipped".to_owned()],
                7,
                std::slice::from_ref(&spell),
            )
        };
        assert_eq!(
            of(Conclusion::Passed),
            "no violation in 7 operations and 1 faults of 1 kinds"
        );
        assert_eq!(
            of(Conclusion::Failed),
            "failed, in 7 operations and 1 faults of 1 kinds: lost"
        );
    }
}
