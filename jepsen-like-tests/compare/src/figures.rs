//! What was measured, round by round, and the medians of it.

use std::collections::BTreeMap;

use quorate_bench::{ReadBack, Report};
use serde::Serialize;

use crate::cpu::Used;
use crate::subject::Subject;
use crate::work::Work;

/// One work in one round.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Sample {
    /// Messages, values, reads or pages.
    pub(crate) per_second: f64,
    /// Of an operation: a batch is one.
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) errors: BTreeMap<String, u64>,
    /// CPU microseconds a unit, of all servers together and of the generator.
    pub(crate) servers_us: f64,
    pub(crate) generator_us: f64,
    pub(crate) read_back: ReadBack,
}

impl Sample {
    pub(crate) fn new(report: Report, used: Used) -> Self {
        let times = report.times[0].percentiles;
        let a_unit = |seconds: f64| match report.units {
            0 => 0.0,
            units => seconds * 1e6 / units as f64,
        };
        Self {
            per_second: report.units_per_second,
            p50_ms: times.p50_ms,
            p99_ms: times.p99_ms,
            servers_us: a_unit(used.servers),
            generator_us: a_unit(used.generator),
            errors: report.errors,
            read_back: report.read_back,
        }
    }
}

/// Everything that was measured.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    cells: BTreeMap<(Work, Subject), Vec<Sample>>,
}

/// One work of one subject, over the rounds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Medians {
    pub(crate) rounds: usize,
    pub(crate) per_second: f64,
    /// Of the rounds, the lowest rate and the highest.
    pub(crate) per_second_lowest: f64,
    pub(crate) per_second_highest: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) servers_us: f64,
    pub(crate) generator_us: f64,
    /// Of all rounds together.
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) read_back: ReadBack,
}

impl Figures {
    pub(crate) fn add(&mut self, subject: Subject, work: Work, sample: Sample) {
        self.cells.entry((work, subject)).or_default().push(sample);
    }

    /// In the order of the work, and for each of the subjects.
    pub(crate) fn cells(&self) -> impl Iterator<Item = (Work, Subject, &[Sample])> {
        self.cells
            .iter()
            .map(|((work, subject), samples)| (*work, *subject, &samples[..]))
    }

    /// None: it was not measured.
    pub(crate) fn of(&self, subject: Subject, work: Work) -> Option<Medians> {
        self.cells.get(&(work, subject)).map(|samples| medians(samples))
    }

    /// All that was acknowledged and looked for was there.
    pub(crate) fn hold(&self) -> bool {
        self.cells.values().flatten().all(|sample| sample.read_back.is_good())
    }
}

fn medians(samples: &[Sample]) -> Medians {
    let of = |figure: fn(&Sample) -> f64| median(samples.iter().map(figure).collect());
    let rates = || samples.iter().map(|sample| sample.per_second);
    let mut errors = BTreeMap::<String, u64>::new();
    let mut read_back = ReadBack::default();
    for sample in samples {
        for (code, count) in &sample.errors {
            *errors.entry(code.clone()).or_default() += count;
        }
        read_back.add(&sample.read_back);
    }
    Medians {
        rounds: samples.len(),
        per_second: of(|sample| sample.per_second),
        per_second_lowest: rates().fold(f64::INFINITY, f64::min),
        per_second_highest: rates().fold(0.0, f64::max),
        p50_ms: of(|sample| sample.p50_ms),
        p99_ms: of(|sample| sample.p99_ms),
        servers_us: of(|sample| sample.servers_us),
        generator_us: of(|sample| sample.generator_us),
        errors,
        read_back,
    }
}

/// Of an even number of values the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    assert!(!values.is_empty(), "a cell has a round");
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A round with this rate and these times.
    pub(crate) fn sample(per_second: f64, p50_ms: f64, p99_ms: f64) -> Sample {
        Sample {
            per_second,
            p50_ms,
            p99_ms,
            errors: BTreeMap::new(),
            servers_us: 100.0,
            generator_us: 10.0,
            read_back: ReadBack {
                asked: 3,
                held: 3,
                ..ReadBack::default()
            },
        }
    }

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median(vec![3.0]), 3.0);
        assert_eq!(median(vec![9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![9.0, 1.0, 2.0, 4.0]), 3.0);
    }

    #[test]
    fn a_cell_has_the_median_of_each_figure_and_the_sum_of_its_errors() {
        let mut figures = Figures::default();
        for (rate, p50) in [(100.0, 5.0), (300.0, 1.0), (200.0, 9.0)] {
            let mut sample = sample(rate, p50, 2.0 * p50);
            sample.errors.insert("overloaded".into(), 2);
            figures.add(Subject::Quorate, Work::Write64, sample);
        }
        assert_eq!(figures.of(Subject::Etcd, Work::Write64), None);
        let found = figures.of(Subject::Quorate, Work::Write64).expect("it was measured");
        assert_eq!((found.rounds, found.per_second), (3, 200.0));
        assert_eq!((found.per_second_lowest, found.per_second_highest), (100.0, 300.0));
        assert_eq!((found.p50_ms, found.p99_ms), (5.0, 10.0));
        assert_eq!(found.errors, [("overloaded".to_owned(), 6)].into());
        assert_eq!((found.read_back.asked, found.read_back.held), (9, 9));
        assert!(figures.hold());

        let mut liar = sample(1.0, 1.0, 1.0);
        liar.read_back.add_lies(1, vec!["message 7 is not there".into()]);
        figures.add(Subject::Nats, Work::Write1, liar);
        assert!(!figures.hold());
    }
}
