//! Who waits, who holds, and who is gone: each attempt goes that way once.

use std::collections::{HashMap, HashSet};

use super::Seen;
use super::operations::{Came, Deed, Lock, Span};
use crate::checker::Judgement;
use crate::checker::operation::Outcome;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Waits,
    Holds,
    Gone,
}

/// What was known from some moment on.
enum Fact<'a> {
    Of(&'a str, Stage),
    Look(&'a Seen),
}

pub(super) fn check(name: &str, lock: &Lock, judgement: &mut Judgement) {
    let mut facts = facts(lock);
    facts.sort_by_key(|(known_ns, _)| *known_ns);
    let mut looks: Vec<&(Span, Seen)> = lock.looks.iter().collect();
    looks.sort_by_key(|(span, _)| span.invoke_ns);
    let tokens = tokens(lock);

    let mut known: HashMap<&str, Stage> = HashMap::new();
    let mut present: HashSet<&str> = HashSet::new();
    let mut before: Option<&Seen> = None;
    let mut facts = facts.into_iter().peekable();
    for (span, seen) in looks {
        while let Some((_, fact)) = facts.next_if(|(known_ns, _)| *known_ns < span.invoke_ns) {
            match fact {
                Fact::Of(owner, stage) => reach(&mut known, owner, stage),
                Fact::Look(seen) => {
                    let now: HashSet<&str> = owners(seen).map(|(owner, _)| owner).collect();
                    for owner in present.difference(&now) {
                        reach(&mut known, owner, Stage::Gone);
                    }
                    for (owner, stage) in owners(seen) {
                        reach(&mut known, owner, stage);
                    }
                    present = now;
                    before = Some(seen);
                }
            }
        }
        for (owner, stage) in owners(seen) {
            if known.get(owner).is_some_and(|known| *known > stage) {
                let (was, is) = (known[owner], stage);
                judgement.violation(format_args!(
                    "back again: event {} sees that {owner} {} {name}, after he {}",
                    span.index,
                    if is == Stage::Holds { "holds" } else { "waits for" },
                    if was == Stage::Gone { "was gone" } else { "had it" }
                ));
            }
        }
        if let Some(holder) = &seen.holder {
            if let Some(token) = tokens.get(holder.owner.as_str())
                && *token != holder.token
            {
                judgement.violation(format_args!(
                    "two tokens: event {} sees that {} holds {name} with token {}; he was told {token}",
                    span.index, holder.owner, holder.token
                ));
            }
            if let Some(before) = before {
                check_turn(name, span, before, seen, &holder.owner, judgement);
            }
        }
    }
}

/// Of those who waited before, the first is served first; who is gone does not count.
fn check_turn(name: &str, span: &Span, before: &Seen, now: &Seen, owner: &str, judgement: &mut Judgement) {
    let Some(place) = before.queue.iter().position(|waiter| waiter == owner) else {
        return;
    };
    let still: HashSet<&String> = now.queue.iter().collect();
    if let Some(passed) = before.queue[..place].iter().find(|waiter| still.contains(waiter)) {
        judgement.violation(format_args!(
            "out of turn: event {} sees that {owner} holds {name}, and {passed}, who was before him, still waits",
            span.index
        ));
    }
}

fn reach<'a>(known: &mut HashMap<&'a str, Stage>, owner: &'a str, stage: Stage) {
    let at = known.entry(owner).or_insert(stage);
    *at = stage.max(*at);
}

fn owners(seen: &Seen) -> impl Iterator<Item = (&str, Stage)> {
    let holder = seen.holder.iter().map(|holder| (holder.owner.as_str(), Stage::Holds));
    holder.chain(seen.queue.iter().map(|owner| (owner.as_str(), Stage::Waits)))
}

/// The token that each owner was told.
fn tokens(lock: &Lock) -> HashMap<&str, u64> {
    let granted = lock
        .attempts
        .iter()
        .filter_map(|attempt| Some((attempt.asked.owner.as_str(), attempt.granted?.token)));
    granted.collect()
}

fn facts(lock: &Lock) -> Vec<(u64, Fact<'_>)> {
    let mut facts = Vec::new();
    let mut owner_of: HashMap<u64, &str> = HashMap::new();
    for attempt in &lock.attempts {
        let owner = attempt.asked.owner.as_str();
        match (attempt.outcome, attempt.granted) {
            (Outcome::Done, Some(granted)) => {
                owner_of.insert(granted.token, owner);
                facts.push((attempt.span.complete_ns, Fact::Of(owner, Stage::Holds)));
            }
            (Outcome::Refused, _) => facts.push((attempt.span.complete_ns, Fact::Of(owner, Stage::Gone))),
            _ => {}
        }
    }
    for used in &lock.uses {
        let is_over = used.deed == Deed::Release && used.result == Came::Done;
        if let (true, Some(owner)) = (is_over, owner_of.get(&used.token)) {
            facts.push((used.span.complete_ns, Fact::Of(owner, Stage::Gone)));
        }
    }
    facts.extend(
        lock.looks
            .iter()
            .map(|(span, seen)| (span.complete_ns, Fact::Look(seen))),
    );
    facts
}
