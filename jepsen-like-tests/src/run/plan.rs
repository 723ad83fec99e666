//! Which fault comes next, and when: by the seed alone, so that the same seed breaks the same things in the same
//! order as far as real time and the cluster's state at each moment let it.

use std::time::Duration;

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Faults of a round in which each is alone. Rounds alternate, and after each there is a quiet time.
const ALONE: u64 = 3;
/// Faults of a round in which they overlap.
const TOGETHER: u64 = 12;
/// Streams of the dice: those of the clients are numbered from below, by workload.
const PLAN_STREAM: u64 = 1 << 62;

#[derive(Debug)]
pub struct Plan {
    seed: u64,
    dice: ChaCha8Rng,
    /// How often each kind was made.
    times: Vec<u64>,
    at_once: usize,
    every: Duration,
    round: u64,
    /// Faults made in this round.
    made: u64,
    /// Counts the attempts, each of which has dice of its own.
    attempts: u64,
}

impl Plan {
    /// Over kinds that are numbered from 0.
    pub fn new(kinds: usize, seed: u64, at_once: usize, every: Duration) -> Self {
        let mut dice = ChaCha8Rng::seed_from_u64(seed);
        dice.set_stream(PLAN_STREAM);
        Self {
            seed,
            dice,
            times: vec![0; kinds],
            at_once: at_once.max(1),
            every,
            round: 0,
            made: 0,
            attempts: 0,
        }
    }

    /// All kinds in the order in which they are to be tried: the rarest first, and among equals by chance.
    pub fn order(&mut self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.times.len()).collect();
        order.shuffle(&mut self.dice);
        order.sort_by_key(|kind| self.times[*kind]);
        order
    }

    /// Dice for one attempt, so that what one fault throws does not change what comes after it.
    pub fn dice(&mut self) -> ChaCha8Rng {
        self.attempts += 1;
        let mut dice = ChaCha8Rng::seed_from_u64(self.seed);
        dice.set_stream(PLAN_STREAM + self.attempts);
        dice
    }

    /// The fault was made.
    pub fn made(&mut self, kind: usize) {
        self.times[kind] += 1;
        self.made += 1;
    }

    pub fn times(&self) -> &[u64] {
        &self.times
    }

    /// How many faults may be open at this time.
    pub fn open_max(&self) -> usize {
        if self.is_alone() { 1 } else { self.at_once }
    }

    fn is_alone(&self) -> bool {
        self.round.is_multiple_of(2) || self.at_once == 1
    }

    /// Whether it is time for a quiet time.
    pub fn round_is_over(&self) -> bool {
        self.made >= if self.is_alone() { ALONE } else { TOGETHER }
    }

    pub fn next_round(&mut self) {
        self.round += 1;
        self.made = 0;
    }

    /// Until the next fault.
    pub fn pause(&mut self) -> Duration {
        self.every.mul_f64(self.dice.random_range(0.5..1.5))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_millis(1000);

    /// The kinds that come, if each is permitted at every moment but those that `refuses` names.
    fn drawn(seed: u64, count: usize, refuses: impl Fn(usize) -> bool) -> Vec<usize> {
        let mut plan = Plan::new(12, seed, 2, EVERY);
        let mut drawn = Vec::new();
        while drawn.len() < count {
            let kind = plan.order().into_iter().find(|kind| !refuses(*kind));
            let kind = kind.expect("some kind is permitted");
            plan.made(kind);
            drawn.push(kind);
            if plan.round_is_over() {
                plan.next_round();
            }
        }
        drawn
    }

    #[test]
    fn the_same_seed_draws_the_same_and_another_one_does_not() {
        assert_eq!(drawn(7, 40, |_| false), drawn(7, 40, |_| false));
        assert_ne!(drawn(7, 40, |_| false), drawn(8, 40, |_| false));
    }

    #[test]
    fn every_kind_comes_before_any_comes_once_more() {
        let drawn = drawn(1, 36, |_| false);
        for third in drawn.chunks(12) {
            let mut kinds = third.to_vec();
            kinds.sort_unstable();
            assert_eq!(kinds, (0..12).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_kind_that_is_never_permitted_does_not_hold_up_the_others() {
        let drawn = drawn(1, 110, |kind| kind == 3);
        for kind in (0..12).filter(|kind| *kind != 3) {
            assert_eq!(drawn.iter().filter(|other| **other == kind).count(), 10, "kind {kind}");
        }
    }

    #[test]
    fn rounds_are_alone_and_together_in_turn() {
        let mut plan = Plan::new(2, 1, 3, EVERY);
        assert_eq!(plan.open_max(), 1);
        plan.next_round();
        assert_eq!(plan.open_max(), 3);
        plan.next_round();
        assert_eq!(plan.open_max(), 1);
    }

    #[test]
    fn pauses_are_around_what_was_asked_for() {
        let mut plan = Plan::new(2, 1, 3, EVERY);
        let pauses: Vec<Duration> = (0..100).map(|_| plan.pause()).collect();
        assert!(pauses.iter().all(|pause| (EVERY / 2..EVERY * 3 / 2).contains(pause)));
    }
}
