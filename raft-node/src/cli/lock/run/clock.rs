//! The clock under which a lock is held.

use std::time::Duration;

/// Since the machine has started, the time that it slept included: while it sleeps, the lock's time runs out all
/// the same. (`Instant` stands still then.)
pub(crate) fn now() -> Duration {
    #[cfg(target_os = "linux")]
    let clock = nix::time::ClockId::CLOCK_BOOTTIME;
    #[cfg(not(target_os = "linux"))]
    let clock = nix::time::ClockId::CLOCK_MONOTONIC;
    let now = nix::time::clock_gettime(clock).expect("the system has this clock");
    Duration::from(now)
}

/// Timers stand still while the machine sleeps, so nobody sleeps for longer than this before he looks again: after
/// a sleep of the machine a command outlives its lock by so much at most.
pub(crate) const LOOK: Duration = Duration::from_millis(100);

/// How long to sleep before looking whether the moment has come.
pub(crate) fn nap(until: Duration) -> Duration {
    until.saturating_sub(now()).min(LOOK)
}
