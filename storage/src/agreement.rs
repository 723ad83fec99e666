//! Whether a log and a state belong together. Each can be whole by itself and still lack what the
//! other relies on: so this is looked at once at start, before the node takes part in anything.
//!
//! The log is durable before it is applied, and the state is synced before the log is purged. So the
//! state never ends above the log, and never below what was purged.

use crate::OpenError;
use crate::log::{LogId, LogState};
use crate::node_dir::NodeDir;

/// Refuses a node whose log has lost what its state knows, or whose state has lost what its log no
/// longer has. `applied` and `installed` are what the state says of itself
/// ([`crate::state::StateStore`]). A state that lacks entries which the log still has is fine: they are
/// applied again, to a state that is missing altogether as well.
pub fn check_agreement(
    dir: &NodeDir,
    log: &LogState,
    applied: Option<LogId>,
    installed: Option<LogId>,
) -> Result<(), OpenError> {
    let lost_log = |applied: LogId, found: String| OpenError::LostAcknowledgedData {
        log: dir.log_dir(),
        marked: format!("the state has applied {applied}, so it"),
        found,
    };
    if let Some(applied) = applied {
        // An installed snapshot is ahead of the log until the log is purged up to it.
        if Some(applied) > log.last.max(installed) {
            let found = match log.last {
                Some(last) => format!("a log that ends at {last}"),
                None => "an empty log".to_owned(),
            };
            return Err(lost_log(applied, found));
        }
        // Entries and snapshots are taken from a leader that was voted for, and the vote is saved
        // first.
        if log.vote.is_none() {
            return Err(lost_log(applied, "no vote".to_owned()));
        }
    }
    if let Some(purged) = log.purged
        && applied.is_none_or(|applied| applied.index < purged.index)
    {
        return Err(OpenError::StateBehindLog {
            state: dir.state_dir(),
            applied: applied.map_or("nothing".to_owned(), |applied| format!("entries up to {applied}")),
            purged: purged.to_string(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Vote;

    fn id(index: u64) -> LogId {
        LogId {
            term: 2,
            leader: 1,
            index,
        }
    }

    /// What is said of a log `purged..=last` and a state; empty if nothing.
    fn said(purged: Option<u64>, last: Option<u64>, applied: Option<u64>, installed: Option<u64>) -> String {
        let tmp = tempfile::tempdir().unwrap();
        let dir = NodeDir::open(tmp.path(), 1).unwrap();
        let log = LogState {
            purged: purged.map(id),
            last: last.map(id),
            committed: None,
            vote: last.map(|_| Vote {
                term: 2,
                leader: 1,
                committed: true,
            }),
        };
        let checked = check_agreement(&dir, &log, applied.map(id), installed.map(id));
        checked.map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn what_a_healthy_node_leaves_behind_agrees() {
        assert_eq!(said(None, None, None, None), "");
        assert_eq!(said(None, Some(9), Some(9), None), "");
        assert_eq!(
            said(Some(5), Some(9), Some(5), None),
            "",
            "the state has lost its unsynced tail"
        );
        assert_eq!(said(None, Some(9), None, None), "", "all of it, and the log is whole");
        assert_eq!(
            said(Some(3), Some(5), Some(9), Some(9)),
            "",
            "installed, not yet purged"
        );
        assert_eq!(said(Some(9), Some(9), Some(9), Some(9)), "");
    }

    #[test]
    fn a_log_below_its_state_is_refused() {
        for error in [
            said(None, Some(8), Some(9), None),
            said(None, None, Some(9), None),
            said(Some(3), Some(8), Some(9), Some(4)),
            // A vote is saved before any snapshot is taken.
            said(None, None, Some(9), Some(9)),
        ] {
            assert!(error.contains("/log has lost acknowledged data"), "{error}");
            assert!(
                error.contains("applied 2-1-9") && error.contains("must not vote"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_state_below_what_was_purged_is_refused() {
        let error = said(Some(5), Some(9), Some(4), None);
        assert!(error.contains("/state has lost data"), "{error}");
        assert!(error.contains("2-1-4") && error.contains("2-1-5"), "{error}");
        let error = said(Some(5), Some(9), None, None);
        assert!(error.contains("it has nothing") && error.contains("2-1-5"), "{error}");
    }
}
