//! When a lock is renewed, and when the command under it must end: arithmetic, without a clock.
//!
//! ```text
//! asked                                        term                kill          certain
//!   |------- renewed every ttl/3 --------|------ TERM, clean up ------|--- margin ----|
//!                                        |<-------- ttl/3, at most 10 s ------------->|
//!                                                                     |<- ttl/10 --->|   at most 1 s, but ttl/1000
//! ```
//! The lock is certainly held until `certain`: the moment before the request that was answered last was sent,
//! and the time that its answer gave. The store counts that time from later on, and its clock stands still when
//! there is no leader, so it may be held for longer, and never shorter.
//!
//! At `term` the command is asked to end, at `kill` it is made to. What lies between `kill` and `certain` is for
//! whatever keeps the signal from being sent, or from working, in time: a busy machine, a process in the kernel.
//! With the shortest ttl, a second, that is 100 ms; with the usual one, ten seconds, it is one second.
//!
//! The time is counted by this machine's clock and by the leader's, each of which may run a little fast or slow. It is
//! assumed that two clocks differ by less than 1 in 1000 (NTP corrects by half of that at most), so the margin is never
//! less than a thousandth of the ttl.

use std::time::Duration;

/// The shortest ttl that leaves the margins their meaning.
pub(crate) const TTL_MIN: Duration = Duration::from_secs(1);
const TERM_LEAD_MAX: Duration = Duration::from_secs(10);
const KILL_LEAD_MAX: Duration = Duration::from_secs(1);
/// One attempt to renew, at one node.
const ATTEMPT_MAX: Duration = Duration::from_secs(2);
/// Between two attempts, so that nodes that refuse at once are not asked without a pause.
pub(crate) const PAUSE: Duration = Duration::from_millis(20);
/// By so much two clocks may differ: 1 in …
const DRIFT: u32 = 1000;

/// What follows from the ttl.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// From one successful renewal's request to the next request.
    pub(crate) renew_every: Duration,
    /// A node that is dead or paused takes so much of the time and no more: from when a renewal is due until `term`
    /// there is a third of the ttl at least, so that each of three nodes is asked once, with the pauses.
    pub(crate) attempt: Duration,
    term_lead: Duration,
    kill_lead: Duration,
    lost_lead: Duration,
}

impl Bounds {
    pub(crate) fn of(ttl: Duration) -> Self {
        let short = (ttl / 10).min(KILL_LEAD_MAX);
        Self {
            renew_every: ttl / 3,
            // A ttl below TTL_MIN is refused before; a client takes no times of zero.
            attempt: ((ttl / 3).saturating_sub(PAUSE * 3) / 3).clamp(Duration::from_millis(1), ATTEMPT_MAX),
            term_lead: (ttl / 3).min(TERM_LEAD_MAX),
            kill_lead: short.max(ttl / DRIFT),
            lost_lead: short,
        }
    }

    pub(crate) fn term_at(&self, certain: Duration) -> Duration {
        certain.saturating_sub(self.term_lead)
    }

    pub(crate) fn kill_at(&self, certain: Duration) -> Duration {
        certain.saturating_sub(self.kill_lead)
    }

    /// Somebody has taken the lock away, so it may be another's already: the command has what is left of its time,
    /// and that is short.
    pub(crate) fn kill_when_lost(&self, now: Duration, certain: Duration) -> Duration {
        self.kill_at(certain).min(now + self.lost_lead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_usual_ttl() {
        let bounds = Bounds::of(ms(10_000));
        let certain = ms(100_000);
        assert_eq!(bounds.renew_every, ms(10_000) / 3);
        assert_eq!(bounds.attempt, (ms(10_000) / 3 - ms(60)) / 3);
        assert_eq!(bounds.term_at(certain), certain - ms(10_000) / 3);
        assert_eq!(bounds.kill_at(certain), ms(99_000));
        assert_eq!(bounds.kill_when_lost(ms(95_000), certain), ms(96_000));
        assert_eq!(bounds.kill_when_lost(ms(98_500), certain), ms(99_000));
    }

    /// For every ttl: the command is killed before the lock can be another's, has time between TERM and KILL, and
    /// three nodes can be asked for a renewal before TERM.
    #[test]
    fn every_ttl_keeps_the_order() {
        for ttl_ms in (1000..=3_600_000).step_by(977) {
            let (ttl, certain) = (ms(ttl_ms), ms(10_000_000));
            let bounds = Bounds::of(ttl);
            let asked = certain - ttl;
            let (term, kill) = (bounds.term_at(certain), bounds.kill_at(certain));
            assert!(kill + ms(100) <= certain, "{ttl:?}");
            assert!(kill + ttl / 1000 <= certain, "{ttl:?}");
            assert!(term + ttl.min(ms(10_000)) / 5 <= kill, "{ttl:?}");
            assert!(
                asked + bounds.renew_every + (bounds.attempt + PAUSE) * 3 <= term,
                "{ttl:?}"
            );
        }
    }

    #[test]
    fn the_longest_ttl_leaves_room_for_clocks_that_differ() {
        let bounds = Bounds::of(ms(3_600_000));
        let certain = ms(10_000_000);
        assert_eq!(bounds.term_at(certain), certain - ms(10_000));
        assert_eq!(bounds.kill_at(certain), certain - ms(3600));
        // Lost already, the lock leaves no more time than under a short ttl.
        assert_eq!(bounds.kill_when_lost(ms(0), certain), ms(1000));
    }

    #[test]
    fn a_machine_that_has_just_started_has_no_time_before_zero() {
        let bounds = Bounds::of(ms(10_000));
        assert_eq!(bounds.term_at(ms(5)), Duration::ZERO);
        assert_eq!(bounds.kill_at(ms(5)), Duration::ZERO);
    }
}
