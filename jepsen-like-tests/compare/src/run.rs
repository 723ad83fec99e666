//! The loop: round after round each system has its turn, alone.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::bare::Answers;
use crate::figures::{Figures, Sample};
use crate::flags::Run;
use crate::machine::{self, Machine};
use crate::report::{Report, Settings};
use crate::servers::{find, version};
use crate::subject::Subject;
use crate::systems::{Bare, Etcd, How, Nats, Program, Quorate, System, beside_this_program};
use crate::work::{VALUE_BYTES, Work};

/// Roughly, of a system's start, its rooms and its end, for the estimate that is shown.
const TURN: Duration = Duration::from_secs(4);
/// The same, of the reading back after each work.
const READ_BACK: Duration = Duration::from_millis(400);

/// Returns whether all held that was acknowledged.
pub(crate) async fn run(flags: &Run) -> Result<bool> {
    let subjects: Vec<Subject> = flags.subjects();
    let turns = subjects.iter().map(|subject| (*subject, flags.works(*subject)));
    let turns: Vec<(Subject, Vec<Work>)> = turns.filter(|(_, works)| !works.is_empty()).collect();
    ensure!(!turns.is_empty(), "none of these systems does any of this work");
    let machine = Machine::look(&flags.dir)?;
    let cast = Cast::find(flags, &turns).await?;
    if let Some(out) = &flags.out {
        std::fs::create_dir_all(out).with_context(|| format!("failed to make {}", out.display()))?;
    }
    say(&format!("this takes about {} min", minutes(flags, &turns)));
    let answers = match cast.programs.get(&Subject::Bare) {
        Some(_) => Some(cast.answers(flags).await?),
        None => None,
    };
    let how = How {
        warm_up: flags.warm_up,
        duration: flags.duration,
        sample: flags.sample as usize,
        rooms: flags.rooms as usize,
    };
    let mut figures = Figures::default();
    let mut done = 0;
    loop {
        for (subject, works) in in_turn(&turns, done) {
            let mut system = cast.start(*subject, flags, answers.as_ref()).await?;
            for work in works {
                let sample = system.work(*work, &how).await;
                let sample = sample.with_context(|| format!("{}: {}", subject.title(), work.title()))?;
                say(&line(done, flags.rounds, *subject, *work, &sample));
                figures.add(*subject, *work, sample);
            }
            drop(system);
            // What one leaves to be written must not be written while the next one is measured.
            tokio::task::spawn_blocking(nix::unistd::sync).await?;
        }
        done += 1;
        let report = Report::new(
            &machine,
            machine::load()?,
            flags.commit.clone(),
            &cast.versions,
            settings(flags, done),
            &figures,
        );
        if let Some(out) = &flags.out {
            report.write(out)?;
        }
        if done == flags.rounds {
            println!("{}", report.text());
            return Ok(figures.hold());
        }
    }
}

/// Whoever began the last round comes last in this one: nobody always follows the same other.
fn in_turn<T>(turns: &[T], round: u64) -> impl Iterator<Item = &T> {
    let first = (round % turns.len() as u64) as usize;
    turns[first..].iter().chain(&turns[..first])
}

fn minutes(flags: &Run, turns: &[(Subject, Vec<Work>)]) -> u64 {
    let works: u32 = turns.iter().map(|(_, works)| works.len() as u32).sum();
    let round = (flags.warm_up + flags.duration + READ_BACK) * works + TURN * turns.len() as u32;
    (round.as_secs() * flags.rounds).div_ceil(60)
}

fn settings(flags: &Run, rounds_done: u64) -> Settings {
    Settings {
        rounds: rounds_done,
        duration_s: flags.duration.as_secs_f64(),
        warm_up_s: flags.warm_up.as_secs_f64(),
        rooms: flags.rooms,
        threads: flags.threads,
        sample: flags.sample,
        value_bytes: VALUE_BYTES,
    }
}

fn line(round: u64, rounds: u64, subject: Subject, work: Work, sample: &Sample) -> String {
    let errors: u64 = sample.errors.values().sum();
    let errors = match errors {
        0 => String::new(),
        errors => format!(", {errors} errors"),
    };
    let back = &sample.read_back;
    let lies = match back.is_good() {
        true => String::new(),
        false => format!(
            ", {} NOT as acknowledged, {} unread: {:?}",
            back.lies, back.unread, back.told
        ),
    };
    format!(
        "round {}/{rounds}  {:<12}  {:<42}  {:>8.0}/s  p50 {:.2} ms  p99 {:.2} ms{errors}{lies}",
        round + 1,
        subject.title(),
        work.title(),
        sample.per_second,
        sample.p50_ms,
        sample.p99_ms
    )
}

/// To whoever waits; what the run came to is printed at the end.
fn say(what: &str) {
    eprintln!("{what}");
}

/// The programs of those who take part, and their versions.
struct Cast {
    programs: BTreeMap<Subject, Program>,
    versions: BTreeMap<Subject, String>,
    quorate: PathBuf,
}

impl Cast {
    /// # Errors
    /// When one is not installed.
    async fn find(flags: &Run, turns: &[(Subject, Vec<Work>)]) -> Result<Self> {
        let own = std::env::current_exe().context("this program has no path")?;
        let beside = match &flags.quorate {
            Some(named) => named.clone(),
            None => beside_this_program()?,
        };
        let quorate =
            || find(Some(&beside), "quorate").context("build the whole workspace first, or name it with --quorate");
        let mut this = Self {
            programs: BTreeMap::new(),
            versions: BTreeMap::new(),
            quorate: beside.clone(),
        };
        for (subject, _) in turns {
            let (binary, version) = match subject {
                Subject::Quorate => {
                    let binary = quorate()?;
                    let version = version(&binary).await?;
                    (binary, version)
                }
                Subject::Bare => {
                    // Its answers are those of a cluster.
                    quorate()?;
                    (own.clone(), "axum 0.8".to_owned())
                }
                Subject::Etcd => {
                    let binary = find(flags.etcd.as_deref(), "etcd")?;
                    let version = version(&binary).await?;
                    (binary, version)
                }
                Subject::Nats => {
                    let binary = find(flags.nats.as_deref(), "nats-server")?;
                    let version = version(&binary).await?;
                    (binary, version)
                }
            };
            this.programs.insert(*subject, this.program(flags, binary));
            this.versions.insert(*subject, version);
        }
        Ok(this)
    }

    fn program(&self, flags: &Run, binary: PathBuf) -> Program {
        Program {
            binary,
            dir: flags.dir.clone(),
        }
    }

    /// From a cluster that is there for them alone.
    async fn answers(&self, flags: &Run) -> Result<Answers> {
        say("fetching from Quorate what the bare handler is to answer");
        let program = self.program(flags, self.quorate.clone());
        let quorate = Quorate::start(&program, flags.rooms as usize).await?;
        Answers::fetch(&quorate).await
    }

    async fn start(&self, subject: Subject, flags: &Run, answers: Option<&Answers>) -> Result<Box<dyn System>> {
        let program = &self.programs[&subject];
        let rooms = flags.rooms as usize;
        let started: Result<Box<dyn System>> = match subject {
            Subject::Quorate => Quorate::start(program, rooms).await.map(|system| Box::new(system) as _),
            Subject::Bare => {
                let answers = answers.expect("they were fetched when it takes part");
                Bare::start(program, answers).await.map(|system| Box::new(system) as _)
            }
            Subject::Etcd => Etcd::start(program, rooms).await.map(|system| Box::new(system) as _),
            Subject::Nats => Nats::start(program).await.map(|system| Box::new(system) as _),
        };
        started.with_context(|| format!("failed to start {}", subject.title()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_move_on_by_one_each_round() {
        let turn = |round| in_turn(&["a", "b", "c"], round).copied().collect::<String>();
        assert_eq!([turn(0), turn(1), turn(2), turn(3)], ["abc", "bca", "cab", "abc"]);
    }
}
