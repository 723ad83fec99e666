//! What Quorate is to reach beside the others, and whether it did, by the medians of one run.

use serde::Serialize;

use crate::figures::{Figures, Medians};
use crate::subject::Subject;
use crate::work::Work;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    Reached,
    NotReached,
    /// Something that it needs was left out of the run.
    NotMeasured,
}

impl Verdict {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Verdict::Reached => "reached",
            Verdict::NotReached => "NOT reached",
            Verdict::NotMeasured => "not measured",
        }
    }
}

/// On which side of its bound a figure must lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Side {
    AtLeast,
    AtMost,
    LessThan,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Target {
    /// In words: what is divided by what.
    pub(crate) what: String,
    pub(crate) side: Side,
    pub(crate) bound: f64,
    /// Beyond the bound: what is aimed at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) aim: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) found: Option<f64>,
    pub(crate) verdict: Verdict,
}

impl Target {
    fn new(what: String, side: Side, bound: f64, found: Option<f64>) -> Self {
        let verdict = match found {
            None => Verdict::NotMeasured,
            Some(found) if side.holds(found, bound) => Verdict::Reached,
            Some(_) => Verdict::NotReached,
        };
        Self {
            what,
            side,
            bound,
            aim: None,
            found,
            verdict,
        }
    }

    fn aiming_at(mut self, aim: f64) -> Self {
        self.aim = Some(aim);
        self
    }

    /// The bound, for people.
    pub(crate) fn asked(&self) -> String {
        let words = match self.side {
            Side::AtLeast => "at least",
            Side::AtMost => "at most",
            Side::LessThan => "less than",
        };
        let aim = self.aim.map(|aim| format!(" (aim: {})", number(aim)));
        format!("{words} {}{}", number(self.bound), aim.unwrap_or_default())
    }

    pub(crate) fn shown(&self) -> String {
        self.found.map_or_else(|| "–".to_owned(), number)
    }
}

impl Side {
    fn holds(self, found: f64, bound: f64) -> bool {
        match self {
            Side::AtLeast => found >= bound,
            Side::AtMost => found <= bound,
            Side::LessThan => found < bound,
        }
    }
}

/// A ratio, or a rate.
fn number(value: f64) -> String {
    match value {
        rate if rate >= 1000.0 => format!("{rate:.0}"),
        ratio => format!("{ratio:.2}"),
    }
}

/// All of them, in the order of the work.
pub(crate) fn targets(figures: &Figures) -> Vec<Target> {
    let find = |subject, work| figures.of(subject, work);
    // Quorate's figure, divided by that of another.
    let ratio = |work, other, others_work, figure: fn(&Medians) -> f64| {
        let (own, other) = (find(Subject::Quorate, work)?, find(other, others_work)?);
        Some(figure(&own) / figure(&other)).filter(|ratio| ratio.is_finite())
    };
    let rate = |work, other| ratio(work, other, work, |medians| medians.per_second);
    let mut list = vec![Target::new(
        "writes, 1 client: p50, divided by etcd's".into(),
        Side::AtMost,
        0.7,
        ratio(Work::Write1, Subject::Etcd, Work::Write1, |medians| medians.p50_ms),
    )];
    for work in [Work::Write64, Work::Write256] {
        let title = work.title();
        let p99 = ratio(work, Subject::Etcd, work, |medians| medians.p99_ms);
        list.extend([
            Target::new(
                format!("{title}: rate, divided by the bare handler's"),
                Side::AtLeast,
                0.65,
                rate(work, Subject::Bare),
            ),
            Target::new(
                format!("{title}: rate, divided by etcd's"),
                Side::AtLeast,
                2.2,
                rate(work, Subject::Etcd),
            )
            .aiming_at(3.0),
            Target::new(format!("{title}: p99, divided by etcd's"), Side::LessThan, 0.5, p99),
            Target::new(
                format!("{title}: rate, divided by JetStream's (an aim)"),
                Side::AtLeast,
                1.25,
                rate(work, Subject::Nats),
            ),
        ]);
    }
    for (other, name, bound) in [(Subject::Etcd, "etcd's", 6.0), (Subject::Nats, "JetStream's", 2.5)] {
        list.push(Target::new(
            format!("writes, 64 WebSockets with 16 in flight: rate, divided by {name} with 1,024 in flight"),
            Side::AtLeast,
            bound,
            rate(Work::Write1024, other),
        ));
    }
    for (work, what) in [(Work::ReadOne, "reads of one"), (Work::ReadPage, "reads of 50")] {
        list.push(Target::new(
            format!("{what}, 64 clients: rate, divided by the bare handler's with the same bytes"),
            Side::AtLeast,
            0.7,
            rate(work, Subject::Bare),
        ));
        list.push(Target::new(
            format!("{what}, 64 clients: rate, divided by etcd's of one"),
            Side::AtLeast,
            2.0,
            ratio(work, Subject::Etcd, Work::ReadOne, |medians| medians.per_second),
        ));
    }
    let batches = Work::ALL.into_iter().filter(|work| work.is_batch());
    let best = batches
        .filter_map(|work| find(Subject::Quorate, work))
        .map(|found| found.per_second);
    list.push(Target::new(
        "batches of 100: messages a second, the best of those measured".into(),
        Side::AtLeast,
        100_000.0,
        best.reduce(f64::max),
    ));
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::tests::sample;

    fn find<'a>(list: &'a [Target], words: &str) -> &'a Target {
        let mut found = list.iter().filter(|target| target.what.contains(words));
        let target = found.next().unwrap_or_else(|| panic!("no target {words}"));
        assert!(found.next().is_none(), "{words} is one target");
        target
    }

    #[test]
    fn what_was_not_measured_is_neither_reached_nor_missed() {
        let list = targets(&Figures::default());
        assert!(
            list.iter().all(|target| target.verdict == Verdict::NotMeasured),
            "{list:?}"
        );
        assert_eq!(list.len(), 16);
    }

    #[test]
    fn a_ratio_is_quorates_median_divided_by_the_others() {
        let mut figures = Figures::default();
        let mut add = |subject, work, rates: [f64; 3], p50, p99| {
            for rate in rates {
                figures.add(subject, work, sample(rate, p50, p99));
            }
        };
        add(
            Subject::Quorate,
            Work::Write64,
            [9_000.0, 11_000.0, 50_000.0],
            4.0,
            10.0,
        );
        add(Subject::Etcd, Work::Write64, [100.0, 5_000.0, 5_500.0], 10.0, 20.0);
        add(Subject::Bare, Work::Write64, [20_000.0; 3], 2.0, 5.0);
        add(Subject::Quorate, Work::Write1, [1_000.0; 3], 0.7, 2.0);
        add(Subject::Etcd, Work::Write1, [500.0; 3], 1.0, 3.0);
        add(Subject::Quorate, Work::ReadPage, [8_000.0; 3], 1.0, 2.0);
        add(Subject::Etcd, Work::ReadOne, [4_000.0; 3], 1.0, 2.0);
        add(Subject::Etcd, Work::ReadPage, [100.0; 3], 1.0, 2.0);
        add(Subject::Quorate, Work::Batch8, [80_000.0; 3], 1.0, 2.0);
        add(Subject::Quorate, Work::BatchWs16, [120_000.0; 3], 1.0, 2.0);
        let list = targets(&figures);
        let expect = |words: &str, found: Option<f64>, verdict| {
            let target = find(&list, words);
            assert_eq!((target.found, target.verdict), (found, verdict), "{target:?}");
        };
        expect(
            "writes, 64 clients: rate, divided by etcd's",
            Some(2.2),
            Verdict::Reached,
        );
        expect(
            "writes, 64 clients: rate, divided by the bare handler's",
            Some(0.55),
            Verdict::NotReached,
        );
        // Half is not less than half.
        expect("writes, 64 clients: p99", Some(0.5), Verdict::NotReached);
        expect("1 client: p50", Some(0.7), Verdict::Reached);
        expect(
            "writes, 64 clients: rate, divided by JetStream's",
            None,
            Verdict::NotMeasured,
        );
        expect(
            "reads of 50, 64 clients: rate, divided by etcd's of one",
            Some(2.0),
            Verdict::Reached,
        );
        expect("batches of 100", Some(120_000.0), Verdict::Reached);
        assert_eq!(
            find(&list, "writes, 64 clients: rate, divided by etcd's").asked(),
            "at least 2.20 (aim: 3.00)"
        );
        assert_eq!(find(&list, "batches").shown(), "120000");
        assert_eq!(find(&list, "256 clients: p99").shown(), "–");
    }

    #[test]
    fn of_a_system_that_did_nothing_there_is_no_ratio() {
        let mut figures = Figures::default();
        figures.add(Subject::Quorate, Work::Write64, sample(1_000.0, 1.0, 1.0));
        figures.add(Subject::Etcd, Work::Write64, sample(0.0, 0.0, 0.0));
        let list = targets(&figures);
        let target = find(&list, "writes, 64 clients: rate, divided by etcd's");
        assert_eq!(target.verdict, Verdict::NotMeasured);
    }
}
