//! Decides whether a history was allowed. Checkers are pure functions over the history alone, and
//! their models are written apart from the product.
//!
//! A [`Checker`] looks at the events it knows (by `f`) and passes over all others, so that one history
//! holds all workloads and every checker can be run over any history.

pub mod locks;
pub mod operation;
pub mod pairs;
pub mod register;
pub mod room;
pub mod sessions;
pub mod streams;
#[cfg(test)]
pub(crate) mod testing;
pub mod updates;
pub mod windows;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

use anyhow::Result;
use serde::Serialize;

use crate::history::Event;

/// Violations that are told one by one; beyond it they are counted.
pub const VIOLATIONS_TOLD_MAX: usize = 100;

/// What a checker made of a history.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Judgement {
    /// How much there was to judge, by what: "acknowledged sends", "reads", … A checker that had
    /// nothing to judge says so by zeros.
    pub counts: BTreeMap<&'static str, u64>,
    /// Empty: none was found. At most [`VIOLATIONS_TOLD_MAX`], each a sentence that names the events.
    pub violations: Vec<String>,
    /// How many there were in all.
    pub violations_total: u64,
}

impl Judgement {
    /// Notes a violation, which is told if there are not too many already.
    pub fn violation(&mut self, what: impl fmt::Display) {
        self.violations_total += 1;
        if self.violations.len() < VIOLATIONS_TOLD_MAX {
            self.violations.push(what.to_string());
        }
    }
}

pub trait Checker: Send + Sync {
    /// As it is named on the command line and in reports, for example `rooms`.
    fn name(&self) -> &'static str;

    /// One line: what it decides.
    fn about(&self) -> &'static str;

    /// The counts of its judgement of which none may be zero in a run that was to exercise it. None named: any will do.
    fn needs(&self) -> &'static [&'static str] {
        &[]
    }

    /// An error means that the history cannot be judged: such a run is inconclusive, never passed.
    fn check(&self, events: &[Event]) -> Result<Judgement>;
}

/// What one checker said of a history, with its name.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    pub checker: &'static str,
    pub about: &'static str,
    /// As [`Checker::needs`] says.
    #[serde(skip)]
    pub needs: &'static [&'static str],
    #[serde(flatten)]
    pub judgement: Judgement,
    pub took_ms: u64,
    /// Why the history cannot be judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Verdict {
    pub fn of(checker: &dyn Checker, events: &[Event]) -> Self {
        let begun = Instant::now();
        let (judgement, error) = match checker.check(events) {
            Ok(judgement) => (judgement, None),
            Err(error) => (Judgement::default(), Some(format!("{error:#}"))),
        };
        Self {
            checker: checker.name(),
            about: checker.about(),
            needs: checker.needs(),
            judgement,
            took_ms: begun.elapsed().as_millis() as u64,
            error,
        }
    }

    /// How much there was to judge, all counts together.
    pub fn judged(&self) -> u64 {
        self.judgement.counts.values().sum()
    }

    /// What there had to be to judge, and how much of it there was.
    pub fn needed(&self) -> Vec<(&'static str, u64)> {
        if self.needs.is_empty() {
            return vec![("things", self.judged())];
        }
        let count = |what: &&'static str| (*what, self.judgement.counts.get(what).copied().unwrap_or_default());
        self.needs.iter().map(count).collect()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(error) = &self.error {
            return write!(f, "{}: cannot be judged: {error}", self.checker);
        }
        let Judgement {
            counts,
            violations,
            violations_total,
        } = &self.judgement;
        let counts: Vec<String> = counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
        let found = match (*violations_total, self.judged()) {
            (0, 0) => "there was nothing to judge".to_owned(),
            (0, _) => format!("no violation in {}", counts.join(", ")),
            (found, _) => format!("{found} violations in {}", counts.join(", ")),
        };
        write!(f, "{}: {found}", self.checker)?;
        violations
            .iter()
            .try_for_each(|violation| write!(f, "\n  {violation}"))?;
        match violations_total - violations.len() as u64 {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

/// What each of the checkers says of the history. They work side by side, since some take much longer than others.
pub fn verdicts(checkers: &[Box<dyn Checker>], events: &[Event]) -> Vec<Verdict> {
    std::thread::scope(|scope| {
        let judging: Vec<_> = checkers
            .iter()
            .map(|checker| scope.spawn(|| Verdict::of(checker.as_ref(), events)))
            .collect();
        let verdicts = judging.into_iter().map(|judging| judging.join());
        verdicts
            .map(|verdict| verdict.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

/// All checkers, for a history of any workload.
pub fn all() -> Vec<Box<dyn Checker>> {
    vec![
        Box::new(room::Rooms),
        Box::new(register::RegisterChecker),
        Box::new(windows::Windows),
        Box::new(locks::LockChecker),
        Box::new(updates::Updates),
        Box::new(streams::Streams),
        Box::new(sessions::Sessions),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_checker_needs_it_counts_also_where_there_is_none() {
        for checker in all() {
            let verdict = Verdict::of(checker.as_ref(), &[]);
            assert!(!checker.needs().is_empty(), "{}", checker.name());
            assert!(verdict.needed().iter().all(|(_, count)| *count == 0), "{verdict}");
            // Some have no counts of a history without any of theirs.
            let counts = verdict.judgement.counts;
            let unknown = checker.needs().iter().find(|what| !counts.contains_key(**what));
            assert!(
                counts.is_empty() || unknown.is_none(),
                "{}: {unknown:?}",
                checker.name()
            );
        }
    }

    #[test]
    fn no_checker_stands_twice() {
        let names: Vec<&str> = all().iter().map(|checker| checker.name()).collect();
        for (at, name) in names.iter().enumerate() {
            assert!(!names[..at].contains(name), "{name} stands twice");
        }
    }
}
