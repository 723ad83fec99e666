//! A change of the membership, as people read it.

use quorate_client::wire::{Change, ChangeKind, ChangeStep};

/// `add node 4: catching up (applied 3 of 9 entries)`
pub(crate) fn in_words(change: &Change) -> String {
    let what = match (change.kind, change.replaces) {
        (ChangeKind::Add, _) => format!("add node {}", change.node),
        (ChangeKind::Remove, _) => format!("remove node {}", change.node),
        (ChangeKind::Replace, Some(old)) => format!("put node {} in the place of node {old}", change.node),
        (ChangeKind::Replace, None) => format!("replace by node {}", change.node),
    };
    let step = match change.step {
        ChangeStep::Contacting => "contacting",
        ChangeStep::CatchingUp => "catching up",
        ChangeStep::Promoting => "promoting",
        ChangeStep::Done => "done",
        ChangeStep::Failed => "failed",
    };
    if change.detail.is_empty() {
        format!("{what}: {step}")
    } else {
        format!("{what}: {step} ({})", change.detail)
    }
}
