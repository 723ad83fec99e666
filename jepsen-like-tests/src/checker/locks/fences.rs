//! The resource outside that keeps the greatest token it has seen.

use super::operations::{Came, Deed, Lock};
use super::order::Ends;
use crate::checker::Judgement;

pub(super) fn check(name: &str, lock: &Lock, ends: &Ends, judgement: &mut Judgement) {
    let mut accepted: Vec<(u64, u64, u64)> = Vec::new();
    for used in &lock.uses {
        match (used.deed, used.result) {
            (Deed::Fence(Some(seq)), _) => accepted.push((seq, used.token, used.span.index)),
            // Somebody else had a greater token while this one was certainly held.
            (Deed::Fence(None), Came::Lost)
                if ends.get(&used.token).is_some_and(|end| used.span.complete_ns < *end) =>
            {
                judgement.violation(format_args!(
                    "fenced off: the resource of {name} refused token {} of event {}, which was held",
                    used.token, used.span.index
                ));
            }
            _ => {}
        }
    }
    accepted.sort_unstable();
    for pair in accepted.windows(2) {
        let ((_, before, earlier), (_, token, index)) = (pair[0], pair[1]);
        if token < before {
            judgement.violation(format_args!(
                "fence broken: the resource of {name} accepted token {token} of event {index} after token {before} of event \
                 {earlier}"
            ));
        }
    }
}
