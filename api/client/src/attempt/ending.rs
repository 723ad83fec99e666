//! How a call ends that has no answer: as a refusal, as unknown, or because nobody could serve it.

use std::time::Duration;

use super::{Again, Request};
use crate::error::Error;

/// A refusal settles a request with a key, also when an earlier attempt may have been applied: the
/// key makes the node answer what was decided then. Only what is checked before the key is looked
/// up says nothing about that attempt, as does nearly every refusal where there is no key.
pub(super) fn settle(request: &Request, error: Error, uncertain: bool) -> Error {
    let Error::Refused(problem) = &error else {
        return error;
    };
    if !uncertain || request.is_settled_by(problem.status) {
        return error;
    }
    Error::OutcomeUnknown {
        key: request.key().cloned(),
        detail: format!("a repetition was refused: {error}"),
    }
}

/// What each node said last. One entry a node at most, so the route's bound of nodes holds here too.
#[derive(Default)]
pub(super) struct LastWords(Vec<(usize, Again)>);

impl LastWords {
    pub(super) fn hear(&mut self, node: usize, again: Again) {
        let spoke_before = self.0.iter().any(|(other, _)| *other == node);
        // That a node was not given the time to answer says nothing new of it.
        if again.cut_short && spoke_before {
            return;
        }
        self.0.retain(|(other, _)| *other != node);
        self.0.push((node, again));
    }

    /// The latest, but rather that of a node which answered: why a living node cannot serve says
    /// more than that another one is dead.
    fn best(mut self) -> Option<Again> {
        let answered = self.0.iter().rposition(|(_, again)| again.problem.is_some());
        let best = answered.or(self.0.len().checked_sub(1))?;
        Some(self.0.swap_remove(best).1)
    }
}

pub(super) fn give_up(request: &Request, words: LastWords, uncertain: bool, deadline: Duration) -> Error {
    let (detail, problem) = words
        .best()
        .map_or((String::new(), None), |again| (again.detail, again.problem));
    let within = format!("not within {}", seconds(deadline));
    let detail = if detail.is_empty() {
        within
    } else {
        format!("{within}: {detail}")
    };
    if uncertain {
        return Error::OutcomeUnknown {
            key: request.key().cloned(),
            detail,
        };
    }
    Error::Unavailable { detail, problem }
}

/// As people say it: no finer than a hundredth.
fn seconds(time: Duration) -> String {
    format!("{} s", (time.as_secs_f64() * 100.0).round() / 100.0)
}
