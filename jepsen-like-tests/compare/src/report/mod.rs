//! A run written down: for people, for docs/PERFORMANCE.md, and for programs.

mod document;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use self::document::Document;
use crate::figures::{Figures, Medians, Sample};
use crate::machine::Machine;
use crate::subject::Subject;
use crate::targets::{Target, targets};
use crate::work::Work;

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Settings {
    /// Those that are finished.
    pub(crate) rounds: u64,
    pub(crate) duration_s: f64,
    pub(crate) warm_up_s: f64,
    pub(crate) rooms: u64,
    pub(crate) threads: usize,
    pub(crate) sample: u64,
    pub(crate) value_bytes: usize,
}

#[derive(Debug, Serialize)]
pub(crate) struct Report<'a> {
    machine: &'a Machine,
    load_after: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    commit: Option<String>,
    settings: Settings,
    systems: Vec<SystemRow<'a>>,
    figures: Vec<Cell<'a>>,
    targets: Vec<Target>,
}

#[derive(Debug, Serialize)]
struct SystemRow<'a> {
    system: Subject,
    version: &'a str,
    promise: &'static str,
    settings: &'static str,
}

#[derive(Debug, Serialize)]
struct Cell<'a> {
    work: Work,
    system: Subject,
    medians: Medians,
    /// Quorate's rate, divided by this one's.
    #[serde(skip_serializing_if = "Option::is_none")]
    quorate_ratio: Option<f64>,
    rounds: &'a [Sample],
}

impl<'a> Report<'a> {
    pub(crate) fn new(
        machine: &'a Machine,
        load_after: String,
        commit: Option<String>,
        versions: &'a BTreeMap<Subject, String>,
        settings: Settings,
        figures: &'a Figures,
    ) -> Self {
        let systems = versions.iter().map(|(system, version)| SystemRow {
            system: *system,
            version,
            promise: system.promise(),
            settings: system.settings(),
        });
        let cells = figures.cells().filter_map(|(work, system, rounds)| {
            let medians = figures.of(system, work)?;
            let quorate = figures
                .of(Subject::Quorate, work)
                .filter(|_| system != Subject::Quorate);
            let ratio = quorate.map(|quorate| quorate.per_second / medians.per_second);
            Some(Cell {
                work,
                system,
                medians,
                quorate_ratio: ratio.filter(|ratio| ratio.is_finite()),
                rounds,
            })
        });
        Self {
            machine,
            load_after,
            commit,
            systems: systems.collect(),
            figures: cells.collect(),
            targets: targets(figures),
            settings,
        }
    }

    /// `compare.json` and `compare.md` in this directory.
    pub(crate) fn write(&self, out: &Path) -> Result<()> {
        let json = serde_json::to_string_pretty(self).expect("there are no keys but strings") + "\n";
        for (name, content) in [("compare.json", json), ("compare.md", self.document().markdown())] {
            let path = out.join(name);
            std::fs::write(&path, content).with_context(|| format!("failed to write {}", path.display()))?;
        }
        Ok(())
    }

    /// For people on a terminal.
    pub(crate) fn text(&self) -> String {
        self.document().text()
    }

    fn document(&self) -> Document {
        let mut document = Document::default();
        document.paragraph(self.circumstances());
        let header = [
            "system",
            "version",
            "when a write is answered, it is …",
            "set up and asked",
        ];
        let rows = self.systems.iter().map(|row| {
            let title = row.system.title();
            [title, row.version, row.promise, row.settings]
                .map(str::to_owned)
                .to_vec()
        });
        document.table(&header, rows.collect());
        let header = [
            "work",
            "system",
            "a second (lowest–highest)",
            "p50 ms",
            "p99 ms",
            "CPU µs: servers",
            "generator",
            "errors",
            "read back",
            "Quorate's rate ÷ this",
        ];
        document.table(&header, self.figures.iter().map(Cell::row).collect());
        let header = ["what was to be reached", "asked", "found", ""];
        let rows = self.targets.iter().map(|target| {
            let verdict = target.verdict.title().to_owned();
            vec![target.what.clone(), target.asked(), target.shown(), verdict]
        });
        document.table(&header, rows.collect());
        document
    }

    fn circumstances(&self) -> String {
        let (machine, settings) = (self.machine, &self.settings);
        let commit = self
            .commit
            .as_deref()
            .map(|commit| format!("Commit {commit}; "))
            .unwrap_or_default();
        format!(
            "{commit}{} cores ({}), {} MB of memory, Linux {}, {}; 4 KiB appended and synced (fdatasync) take {:.0} µs at the median, \
             {:.0} µs at p99; load average {} before and {} after. Servers and generator ({} thread{}) share the machine. {} \
             round{} of {} s after {} s of warm-up, medians; values of {} bytes, {} rooms; up to {} of what was acknowledged in each work and \
             round read back.",
            machine.cores,
            machine.processor,
            machine.memory_mb,
            machine.kernel,
            machine.disk,
            machine.fdatasync_p50_us,
            machine.fdatasync_p99_us,
            machine.load_before,
            self.load_after,
            settings.threads,
            plural(settings.threads as u64),
            settings.rounds,
            plural(settings.rounds),
            settings.duration_s,
            settings.warm_up_s,
            settings.value_bytes,
            settings.rooms,
            settings.sample,
        )
    }
}

impl Cell<'_> {
    fn row(&self) -> Vec<String> {
        let Medians {
            per_second,
            per_second_lowest,
            per_second_highest,
            p50_ms,
            p99_ms,
            servers_us,
            generator_us,
            errors,
            read_back,
            ..
        } = &self.medians;
        let errors: Vec<String> = errors.iter().map(|(code, count)| format!("{code} {count}")).collect();
        let back = match (read_back.asked, read_back.is_good()) {
            (0, true) => "–".to_owned(),
            (asked, true) => format!("all {asked}"),
            (asked, false) => format!(
                "{} of {asked}; {} WRONG, {} unread",
                read_back.held, read_back.lies, read_back.unread
            ),
        };
        vec![
            self.work.title().to_owned(),
            self.system.title().to_owned(),
            format!("{per_second:.0} ({per_second_lowest:.0}–{per_second_highest:.0})"),
            format!("{p50_ms:.2}"),
            format!("{p99_ms:.2}"),
            format!("{servers_us:.0}"),
            format!("{generator_us:.0}"),
            if errors.is_empty() {
                "none".to_owned()
            } else {
                errors.join(", ")
            },
            back,
            self.quorate_ratio
                .map_or_else(String::new, |ratio| format!("{ratio:.2}")),
        ]
    }
}

fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::tests::sample;

    fn machine() -> Machine {
        Machine {
            processor: "A Processor".into(),
            cores: 2,
            memory_mb: 1000,
            kernel: "6.1".into(),
            disk: "ext4 on /dev/vda".into(),
            fdatasync_p50_us: 200.0,
            fdatasync_p99_us: 900.0,
            load_before: "0.1 0.2 0.3".into(),
        }
    }

    const SETTINGS: Settings = Settings {
        rounds: 3,
        duration_s: 8.0,
        warm_up_s: 1.0,
        rooms: 10,
        threads: 1,
        sample: 300,
        value_bytes: 256,
    };

    #[test]
    fn one_run_is_written_for_people_for_the_documentation_and_for_programs() {
        let mut figures = Figures::default();
        for (quorate, etcd) in [(9_000.0, 4_000.0), (10_000.0, 5_000.0), (30_000.0, 4_500.0)] {
            figures.add(Subject::Quorate, Work::Write64, sample(quorate, 5.0, 9.0));
            let mut other = sample(etcd, 12.0, 40.0);
            other.errors.insert("unavailable".into(), 1);
            figures.add(Subject::Etcd, Work::Write64, other);
        }
        let versions = [
            (Subject::Quorate, "0.1.0".to_owned()),
            (Subject::Etcd, "3.4.23".to_owned()),
        ]
        .into();
        let machine = machine();
        let commit = Some("abc123".to_owned());
        let report = Report::new(&machine, "1 1 1".into(), commit, &versions, SETTINGS, &figures);

        let markdown = report.document().markdown();
        let row = "| writes, 64 clients | etcd | 4500 (4000–5000) | 12.00 | 40.00 | 100 | 10 | unavailable 3 | all 9 | 2.22 |";
        assert!(markdown.lines().any(|line| line == row), "{markdown}");
        let row = "| writes, 64 clients: rate, divided by etcd's | at least 2.20 (aim: 3.00) | 2.22 | reached |";
        assert!(markdown.lines().any(|line| line == row), "{markdown}");
        assert!(
            markdown.starts_with("Commit abc123; 2 cores (A Processor)"),
            "{markdown}"
        );
        assert!(
            markdown.contains("| etcd | 3.4.23 | synced (fdatasync) by 2 of 3 nodes"),
            "{markdown}"
        );

        let text = report.text();
        for words in ["10000 (9000–30000)", "not measured", "3 rounds of 8 s", "fdatasync"] {
            assert!(text.contains(words), "{words}: {text}");
        }

        let out = tempfile::tempdir().expect("a directory");
        report.write(out.path()).expect("it can be written to");
        let json = std::fs::read(out.path().join("compare.json")).expect("it is there");
        let json: serde_json::Value = serde_json::from_slice(&json).expect("it is JSON");
        let etcd = &json["figures"][1];
        assert_eq!((&etcd["work"], &etcd["system"]), (&"write-64".into(), &"etcd".into()));
        assert_eq!(etcd["medians"]["per_second"], 4500.0);
        assert_eq!(etcd["rounds"].as_array().expect("a list").len(), 3);
        assert_eq!(json["targets"].as_array().expect("a list").len(), 16);
        assert_eq!(json["settings"]["value_bytes"], 256);
    }
}
