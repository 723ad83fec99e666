//! Planted bugs: mistakes that the fault tests must find, or they prove nothing.
//!
//! A store is only as well tested as its tests are able to fail. So the mistakes that a store like this one could
//! have are made on purpose, one at a time, each at the very place where it would be made; and a test shows which
//! checker finds it, and how soon. They are there only with the cargo feature `testing`, which the ordinary
//! `quorate` refuses to be built with: without it [`is_planted`] is a constant, and nothing is left of the
//! mistakes. The binary `quorate-planted` has the one that `QUORATE_PLANTED_BUG` names, a simulation the one that
//! it has called `plant` with.
//!
//! | name | the mistake | where |
//! |---|---|---|
//! | `ack-before-fsync` | an append counts as durable when it is written, before it is synced | `RocksDisk::commit`, `MemoryLog` |
//! | `read-without-quorum` | who believes that he leads answers reads without asking a majority | `NodeCore::local_read_index` |
//! | `vote-not-synced` | a vote is given before it is durable | `RocksDisk::commit`, `MemoryLog` |
//! | `dedup-missing-from-snapshot` | an installed snapshot is without the records of idempotency keys | `Machine::install_snapshot` |
//! | `stream-resume-off-by-one` | a stream that is resumed begins one item too late | `query::changes` (`?after=`), `routes::stream` (`Last-Event-ID`) |
//! | `token-reset-on-restart` | a fencing token is made of the time that its leader has led, and not of the revision | `apply::lock`, `Clock::stamp` |
//! | `expiry-by-local-clock` | what expires does so by the wall clock of whoever leads | `apply` |

/// One of the mistakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    AckBeforeFsync = 1,
    ReadWithoutQuorum,
    VoteNotSynced,
    DedupMissingFromSnapshot,
    StreamResumeOffByOne,
    TokenResetOnRestart,
    ExpiryByLocalClock,
}

impl Bug {
    pub const ALL: [Bug; 7] = [
        Bug::AckBeforeFsync,
        Bug::ReadWithoutQuorum,
        Bug::VoteNotSynced,
        Bug::DedupMissingFromSnapshot,
        Bug::StreamResumeOffByOne,
        Bug::TokenResetOnRestart,
        Bug::ExpiryByLocalClock,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Bug::AckBeforeFsync => "ack-before-fsync",
            Bug::ReadWithoutQuorum => "read-without-quorum",
            Bug::VoteNotSynced => "vote-not-synced",
            Bug::DedupMissingFromSnapshot => "dedup-missing-from-snapshot",
            Bug::StreamResumeOffByOne => "stream-resume-off-by-one",
            Bug::TokenResetOnRestart => "token-reset-on-restart",
            Bug::ExpiryByLocalClock => "expiry-by-local-clock",
        }
    }

    pub fn named(name: &str) -> Option<Bug> {
        Bug::ALL.into_iter().find(|bug| bug.name() == name)
    }
}

/// Whether this process has the bug. Never, without the feature.
#[cfg(not(feature = "testing"))]
pub const fn is_planted(_bug: Bug) -> bool {
    false
}

#[cfg(feature = "testing")]
pub use on::{clear, is_planted, plant};

#[cfg(feature = "testing")]
mod on {
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::Bug;

    /// The one that this process has; 0 for none. One of a process and not of a node: a bug is in a program.
    static PLANTED: AtomicU8 = AtomicU8::new(0);

    /// Whether this process has the bug.
    pub fn is_planted(bug: Bug) -> bool {
        PLANTED.load(Ordering::Relaxed) == bug as u8
    }

    /// From now on this process has this bug, and no other.
    pub fn plant(bug: Bug) {
        PLANTED.store(bug as u8, Ordering::Relaxed);
    }

    /// From now on this process has no bug.
    pub fn clear() {
        PLANTED.store(0, Ordering::Relaxed);
    }
}

/// What [`Bug::DedupMissingFromSnapshot`] leaves out.
pub fn dedup_rows(space: crate::SpaceId) -> crate::Change {
    let (caller, key) = (crate::UserId::ROOT, "");
    crate::Change::DeleteRange {
        from: crate::keys::Key::Dedup { caller, key }.encode(space),
        to: crate::keys::Group::DedupExpiries.range(space).start,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bug_has_a_name_of_its_own() {
        for bug in Bug::ALL {
            assert_eq!(Bug::named(bug.name()), Some(bug));
        }
        assert_eq!(Bug::named("none"), None);
    }

    #[cfg(not(feature = "testing"))]
    #[test]
    fn nothing_is_planted_without_the_feature() {
        const { assert!(!is_planted(Bug::AckBeforeFsync)) };
        assert!(Bug::ALL.iter().all(|bug| !is_planted(*bug)));
    }

    #[cfg(feature = "testing")]
    #[test]
    fn one_bug_at_a_time() {
        assert!(Bug::ALL.iter().all(|bug| !is_planted(*bug)));
        for bug in Bug::ALL {
            plant(bug);
            let planted: Vec<Bug> = Bug::ALL.into_iter().filter(|bug| is_planted(*bug)).collect();
            assert_eq!(planted, [bug]);
        }
        clear();
        assert!(Bug::ALL.iter().all(|bug| !is_planted(*bug)));
    }
}
