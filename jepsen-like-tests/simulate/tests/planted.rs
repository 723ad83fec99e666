//! Each planted bug is found, by the checker that is there for it, within a stated number of seeds. Built with the
//! feature `testing` only; see `quorate_state_machine::planted` for what the bugs are.

use quorate_simulate::{Settings, run};
use quorate_state_machine::planted::{Bug, plant};

const SETTINGS: Settings = Settings {
    seconds: 20,
    nodes: None,
};

/// Simulates seeds until one finds the bug. One of `checkers` must be the first that does.
fn is_found(bug: Bug, seeds_max: u64, checkers: &[&str]) {
    // One of a process: nextest gives each test a process of its own.
    plant(bug);
    for seed in 1..=seeds_max {
        if let Some((checker, what)) = run(seed, SETTINGS).violation {
            println!("{}: seed {seed}, {checker}: {what}", bug.name());
            let expected = checkers.iter().any(|expected| checker.starts_with(expected));
            assert!(
                expected,
                "{} was found by {checker}, and not by {checkers:?}: {what}",
                bug.name()
            );
            return;
        }
    }
    panic!("{} was not found by {seeds_max} seeds", bug.name());
}

#[test]
fn an_acknowledgement_before_the_sync() {
    is_found(Bug::AckBeforeFsync, 5, &["committed on a majority of disks"]);
}

#[test]
fn a_read_without_a_quorum() {
    is_found(Bug::ReadWithoutQuorum, 20, &["rooms"]);
}

#[test]
fn a_vote_that_is_not_synced() {
    is_found(Bug::VoteNotSynced, 5, &["election safety"]);
}

#[test]
fn a_snapshot_without_the_keys_of_idempotency() {
    is_found(
        Bug::DedupMissingFromSnapshot,
        20,
        &["the same log makes the same state", "answers", "rooms"],
    );
}

#[test]
fn a_stream_that_resumes_one_too_late() {
    is_found(Bug::StreamResumeOffByOne, 5, &["streams"]);
}

#[test]
fn a_token_that_starts_again() {
    is_found(Bug::TokenResetOnRestart, 10, &["locks"]);
}

#[test]
fn an_expiry_by_the_wall_clock() {
    is_found(Bug::ExpiryByLocalClock, 10, &["locks"]);
}
