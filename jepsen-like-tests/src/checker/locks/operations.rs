//! What the history says of each lock.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{ACQUIRE, Acquire, DRAIN, FENCE, Granted, LOOK, LOST, RELEASE, RENEW, Seen, Under};
use crate::checker::Judgement;
use crate::checker::operation::Outcome;
use crate::checker::pairs::{Pair, pairs};
use crate::checker::updates::{ADD, Addition};
use crate::history::Event;

/// When an operation was, and which one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) index: u64,
    pub(super) invoke_ns: u64,
    pub(super) complete_ns: u64,
}

impl Span {
    fn of(pair: &Pair<'_>) -> Self {
        Self {
            index: pair.index(),
            invoke_ns: pair.invoke_ns(),
            complete_ns: pair.complete_ns(),
        }
    }
}

#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) span: Span,
    pub(super) asked: Acquire,
    pub(super) outcome: Outcome,
    pub(super) granted: Option<Granted>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    /// With the ttl that it asked for; none: that of before.
    Renew(Option<u64>),
    Release,
    /// A guarded write to the store. With its rev, where that is known.
    Write(Option<u64>),
    /// A write to a resource outside. With its place among those accepted.
    Fence(Option<u64>),
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    Done,
    /// Told that the token is not good.
    Lost,
    NotDone,
    Unknown,
}

/// What was done under a token.
#[derive(Debug, Clone, Copy)]
pub(super) struct Use {
    pub(super) span: Span,
    pub(super) token: u64,
    pub(super) deed: Deed,
    pub(super) result: Came,
}

#[derive(Debug, Default)]
pub(super) struct Lock {
    pub(super) attempts: Vec<Attempt>,
    pub(super) uses: Vec<Use>,
    pub(super) looks: Vec<(Span, Seen)>,
    /// The events of attempts to take it in the end that came to nothing.
    pub(super) stuck: Vec<u64>,
}

pub(super) fn locks(events: &[Event]) -> Result<BTreeMap<String, Lock>> {
    let mut locks: BTreeMap<String, Lock> = BTreeMap::new();
    for pair in pairs(events, &["lock.", "fence.", ADD])? {
        add(&mut locks, &pair).with_context(|| format!("event {}", pair.index()))?;
    }
    Ok(locks)
}

fn add(locks: &mut BTreeMap<String, Lock>, pair: &Pair<'_>) -> Result<()> {
    let (span, outcome) = (Span::of(pair), pair.outcome());
    let is_lost = || pair.end.and_then(|end| end.value.as_ref()).and_then(Value::as_str) == Some(LOST);
    let result = match outcome {
        Outcome::Done => Came::Done,
        Outcome::Refused if is_lost() => Came::Lost,
        Outcome::Refused => Came::NotDone,
        Outcome::Unknown => Came::Unknown,
    };
    let (name, under, deed) = match pair.f() {
        ADD => {
            let Addition { lock, token, is_fenced } = pair.asked()?;
            if !is_fenced {
                return Ok(());
            }
            let rev = pair.end.and_then(|end| end.rev);
            (lock, Under { token, ttl_ms: None }, Deed::Write(rev))
        }
        RENEW => {
            let under: Under = pair.asked()?;
            (pair.key()?.to_owned(), under, Deed::Renew(under.ttl_ms))
        }
        RELEASE => (pair.key()?.to_owned(), pair.asked()?, Deed::Release),
        FENCE => {
            let seq = pair.end.and_then(|end| end.seq);
            let seq = (outcome == Outcome::Done)
                .then(|| seq.context("accepted without its place"))
                .transpose()?;
            let deed = Deed::Fence(seq);
            // The resource says no only because of the token.
            let result = if outcome == Outcome::Refused {
                Came::Lost
            } else {
                result
            };
            let under: Under = pair.asked()?;
            let lock = locks.entry(pair.key()?.to_owned()).or_default();
            lock.uses.push(Use {
                span,
                token: under.token,
                deed,
                result,
            });
            return Ok(());
        }
        ACQUIRE => {
            let granted = (outcome == Outcome::Done).then(|| pair.answered()).transpose()?;
            let lock = locks.entry(pair.key()?.to_owned()).or_default();
            lock.attempts.push(Attempt {
                span,
                asked: pair.asked()?,
                outcome,
                granted,
            });
            return Ok(());
        }
        LOOK => {
            let lock = locks.entry(pair.key()?.to_owned()).or_default();
            if outcome == Outcome::Done {
                lock.looks.push((span, pair.answered()?));
            }
            return Ok(());
        }
        DRAIN => {
            let lock = locks.entry(pair.key()?.to_owned()).or_default();
            if outcome != Outcome::Done {
                lock.stuck.push(span.index);
            }
            return Ok(());
        }
        other => bail!("unknown operation {other}"),
    };
    let lock = locks.entry(name).or_default();
    lock.uses.push(Use {
        span,
        token: under.token,
        deed,
        result,
    });
    Ok(())
}

pub(super) fn count(locks: &BTreeMap<String, Lock>, judgement: &mut Judgement) {
    let mut add = |what, more: usize| *judgement.counts.entry(what).or_default() += more as u64;
    add("locks", locks.len());
    // Said also where there is none: without grants there is nothing to judge.
    add("grants", 0);
    for lock in locks.values() {
        let attempts = |outcome| {
            lock.attempts
                .iter()
                .filter(|attempt| attempt.outcome == outcome)
                .count()
        };
        let uses = |which: fn(&Deed) -> bool, result| {
            lock.uses
                .iter()
                .filter(|used| which(&used.deed) && used.result == result)
                .count()
        };
        add("grants", attempts(Outcome::Done));
        add("attempts that came to nothing", attempts(Outcome::Refused));
        add("attempts unknown or cancelled", attempts(Outcome::Unknown));
        add("renewals", uses(|deed| matches!(deed, Deed::Renew(_)), Came::Done));
        add("releases", uses(|deed| matches!(deed, Deed::Release), Came::Done));
        add(
            "guarded writes",
            uses(|deed| matches!(deed, Deed::Write(_)), Came::Done),
        );
        add(
            "guarded writes that were too late",
            uses(|deed| matches!(deed, Deed::Write(_)), Came::Lost),
        );
        add(
            "writes that a fence accepted",
            uses(|deed| matches!(deed, Deed::Fence(_)), Came::Done),
        );
        add(
            "writes that a fence refused",
            uses(|deed| matches!(deed, Deed::Fence(_)), Came::Lost),
        );
        add("looks", lock.looks.len());
    }
}
