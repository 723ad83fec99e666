//! The order of tokens against time, and how long each hold must have lasted.

use std::collections::{BTreeMap, HashMap};

use super::operations::{Came, Deed, Lock, Span};
use crate::checker::Judgement;

/// The store counts whole milliseconds, at the grant and at the end.
const ROUNDING_NS: u64 = 2_000_000;
const MS: u64 = 1_000_000;
const LOOK_AT_HOLDER: &str = "a look at the holder";

/// The moment before which the hold under a token cannot have ended, by token.
pub(super) type Ends = HashMap<u64, u64>;

/// Where an operation stands under its token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Grant,
    Held,
    Release,
    Free,
}

struct Placed {
    token: u64,
    phase: Phase,
    span: Span,
    what: &'static str,
    /// It changes nothing.
    is_look: bool,
}

/// What is known of the hold under one token.
#[derive(Default)]
struct Hold {
    ttl_ns: Option<u64>,
    /// When each renewal was asked for, its ttl, and whether it was done.
    renewals: Vec<(u64, u64, bool)>,
    /// When its release was first asked for, if that may have been done.
    release_ns: Option<u64>,
}

impl Hold {
    /// What its end is reckoned from.
    fn terms(&self) -> String {
        let ms = |ns: u64| ns / MS;
        let mut terms = format!("ttl {} ms", ms(self.ttl_ns.unwrap_or_default()));
        if let Some((asked_ns, ttl_ns, is_done)) = self.renewals.last() {
            let outcome = if *is_done { "done" } else { "unknown" };
            terms += &format!(
                ", last renewal ({outcome}) for {} ms asked for at {asked_ns} ns",
                ms(*ttl_ns)
            );
        }
        if let Some(release_ns) = self.release_ns {
            terms += &format!(", release asked for at {release_ns} ns");
        }
        terms
    }

    /// The moment before which it cannot have ended, if it was not granted before `granted_ns`.
    fn end(&self, granted_ns: u64) -> u64 {
        let Some(ttl_ns) = self.ttl_ns else { return granted_ns };
        let from = |asked_ns: u64, ttl_ns: u64| asked_ns.max(granted_ns).saturating_add(ttl_ns);
        let done = self.renewals.iter().rposition(|(_, _, is_done)| *is_done);
        let last = done.map(|place| from(self.renewals[place].0, self.renewals[place].1));
        let mut end = last.unwrap_or(granted_ns.saturating_add(ttl_ns));
        // One of unknown outcome may have made it shorter, also one that was asked for before the last that was done:
        // it may have come after it.
        let done_ns = done.map_or(0, |place| self.renewals[place].0);
        for (asked_ns, ttl_ns, _) in self.renewals.iter().filter(|(_, _, is_done)| !is_done) {
            end = end.min(from(done_ns.max(*asked_ns), *ttl_ns));
        }
        end = end.saturating_sub(ROUNDING_NS).max(granted_ns);
        self.release_ns
            .map_or(end, |release_ns| end.min(release_ns.max(granted_ns)))
    }
}

/// Judges one lock. Answers how long each hold lasted at least.
pub(super) fn check(name: &str, lock: &Lock, judgement: &mut Judgement) -> Ends {
    let holds = holds(lock);
    let mut ends = Ends::new();
    // The earliest moment left, and why.
    let (mut moment, mut because) = (0, String::new());
    // The same for the clock that ttls are counted by, which is read when a change is proposed: later than all changes
    // that stand before it, and perhaps earlier than a look that stands before it, which saw what was committed by then.
    let (mut proposed, mut proposed_because) = (0, String::new());
    let mut last: Option<(u64, Phase)> = None;
    // The earliest moment of the last grant, and why.
    let (mut granted_ns, mut granted_because) = (0, String::new());
    for Placed {
        token,
        phase,
        span,
        what,
        is_look,
    } in placed(lock)
    {
        let new_token = last.is_none_or(|(before, _)| before != token);
        if let Some((before, _)) = last
            && (new_token || phase == Phase::Free)
            && let Some(hold) = holds.get(&before)
        {
            let end = hold.end(granted_ns);
            let why = || {
                format!(
                    "token {before} was held until {end} ns at least: {} (granted at {granted_ns} ns at the earliest: \
                     {granted_because})",
                    hold.terms()
                )
            };
            if end > moment {
                (moment, because) = (end, why());
            }
            if end > proposed {
                (proposed, proposed_because) = (end, why());
            }
        }
        let why = || format!("event {}, which stands before it, had not begun", span.index);
        if span.invoke_ns > moment {
            (moment, because) = (span.invoke_ns, why());
        }
        if span.invoke_ns > proposed && !is_look {
            (proposed, proposed_because) = (span.invoke_ns, why());
        }
        if new_token {
            (granted_ns, granted_because) = (proposed, proposed_because.clone());
        }
        if moment > span.complete_ns {
            let kind = match phase {
                Phase::Grant => "granted too early",
                Phase::Held => "used too early",
                Phase::Release => "released too early",
                Phase::Free => "seen free too early",
            };
            judgement.violation(format_args!(
                "{kind}: {what} of {name} under token {token}, event {}, ended {} ms too early: {because}",
                span.index,
                (moment - span.complete_ns).div_ceil(MS)
            ));
            // What comes after is judged by what did happen, so that one violation is told once.
            moment = span.complete_ns;
            proposed = proposed.min(moment);
            because = format!("event {}, which stands before it, ended then", span.index);
            granted_ns = granted_ns.min(moment);
        }
        last = Some((token, phase));
        if new_token && let Some(hold) = holds.get(&token) {
            ends.insert(token, hold.end(granted_ns));
        }
    }
    check_lost(name, lock, &ends, judgement);
    check_revs(name, lock, judgement);
    for index in &lock.stuck {
        judgement.violation(format_args!(
            "stuck: event {index} could not take {name} when all was well again"
        ));
    }
    ends
}

/// Everything that has a place, in its order.
fn placed(lock: &Lock) -> Vec<Placed> {
    let mut placed = Vec::new();
    let mut place = |token, phase, span, what| {
        placed.push(Placed {
            token,
            phase,
            span,
            what,
            is_look: matches!(phase, Phase::Free) || what == LOOK_AT_HOLDER,
        });
    };
    for attempt in &lock.attempts {
        if let Some(granted) = attempt.granted {
            place(granted.token, Phase::Grant, attempt.span, "the grant");
        }
    }
    for used in lock.uses.iter().filter(|used| used.result == Came::Done) {
        match used.deed {
            Deed::Renew(_) => place(used.token, Phase::Held, used.span, "a renewal"),
            Deed::Write(_) => place(used.token, Phase::Held, used.span, "a guarded write"),
            Deed::Release => place(used.token, Phase::Release, used.span, "the release"),
            // A resource outside knows nothing of who holds the lock.
            Deed::Fence(_) => {}
        }
    }
    for (span, seen) in &lock.looks {
        match &seen.holder {
            Some(holder) => place(holder.token, Phase::Held, *span, LOOK_AT_HOLDER),
            None => place(seen.last_token, Phase::Free, *span, "a look at the free lock"),
        }
    }
    placed.sort_by_key(|operation| (operation.token, operation.phase, operation.span.invoke_ns));
    placed
}

fn holds(lock: &Lock) -> HashMap<u64, Hold> {
    let mut holds: HashMap<u64, Hold> = HashMap::new();
    for attempt in &lock.attempts {
        // One that may be lost when it is answered is no promise.
        if let Some(granted) = attempt.granted.filter(|granted| granted.expires_in_ms > 0) {
            holds.entry(granted.token).or_default().ttl_ns = Some(attempt.asked.ttl_ms * MS);
        }
    }
    for used in &lock.uses {
        let Some(hold) = holds.get_mut(&used.token) else {
            continue;
        };
        let (is_done, may_be_done) = (
            used.result == Came::Done,
            matches!(used.result, Came::Done | Came::Unknown),
        );
        match used.deed {
            Deed::Renew(ttl_ms) if may_be_done => {
                let before = hold.ttl_ns.unwrap_or_default();
                hold.renewals.push((
                    used.span.invoke_ns,
                    ttl_ms.map_or(before, |ttl_ms| ttl_ms * MS),
                    is_done,
                ));
            }
            Deed::Release if may_be_done => {
                let first = hold.release_ns.unwrap_or(u64::MAX);
                hold.release_ns = Some(first.min(used.span.invoke_ns));
            }
            _ => {}
        }
    }
    holds
}

/// Nobody is told that his lock is lost before it can be.
fn check_lost(name: &str, lock: &Lock, ends: &Ends, judgement: &mut Judgement) {
    let lost = lock
        .uses
        .iter()
        .filter(|used| used.result == Came::Lost && !matches!(used.deed, Deed::Fence(_)));
    for used in lost {
        let Some(end) = ends.get(&used.token) else { continue };
        if used.span.complete_ns < *end {
            judgement.violation(format_args!(
                "lost too early: event {} was told that token {} of {name} is lost, {} ms before it could be",
                used.span.index,
                used.token,
                (end - used.span.complete_ns).div_ceil(MS)
            ));
        }
    }
}

/// In the store's own order, guarded writes go with the tokens.
fn check_revs(name: &str, lock: &Lock, judgement: &mut Judgement) {
    let mut writes: Vec<(u64, u64, u64)> = Vec::new();
    for used in &lock.uses {
        if let Deed::Write(Some(rev)) = used.deed {
            writes.push((rev, used.token, used.span.index));
        }
    }
    writes.sort_unstable();
    for pair in writes.windows(2) {
        let ((_, before, earlier), (rev, token, index)) = (pair[0], pair[1]);
        if token < before {
            judgement.violation(format_args!(
                "written behind a greater token: event {index}, under token {token} of {name}, has rev {rev}, behind event \
                 {earlier} under token {before}"
            ));
        }
    }
}

/// Tokens grow with every grant of every lock. Two locks that become free in one entry of the log get equal ones: that is
/// counted.
pub(super) fn check_tokens(locks: &BTreeMap<String, Lock>, judgement: &mut Judgement) {
    let mut grants: Vec<(u64, Span, &str)> = Vec::new();
    for (name, lock) in locks {
        for attempt in &lock.attempts {
            grants.extend(
                attempt
                    .granted
                    .map(|granted| (granted.token, attempt.span, name.as_str())),
            );
        }
    }
    grants.sort_by_key(|(token, span, name)| (*token, *name, span.invoke_ns));
    let mut latest: Option<(Span, &str)> = None;
    let mut before: Option<(u64, &str)> = None;
    let mut shared = 0;
    for (token, span, name) in grants {
        match before {
            Some((other, of)) if other == token && of == name => judgement.violation(format_args!(
                "given twice: event {} got token {token} of {name}, which somebody had before",
                span.index
            )),
            Some((other, _)) if other == token => shared += 1,
            _ => {}
        }
        before = Some((token, name));
        // Within one lock, the order of its tokens was judged above.
        if let Some((later, other)) = latest
            && later.invoke_ns > span.complete_ns
            && other != name
        {
            judgement.violation(format_args!(
                "tokens against time: event {} had token {token} of {name} before event {} asked for {other} and got a \
                 smaller one",
                span.index, later.index
            ));
        }
        if latest.is_none_or(|(later, _)| span.invoke_ns > later.invoke_ns) {
            latest = Some((span, name));
        }
    }
    judgement
        .counts
        .insert("grants with a token that another lock has too", shared);
}
