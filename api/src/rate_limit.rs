//! How often a caller may ask: a token bucket each (GCRA), in a table that does not grow.
//!
//! [`RateLimiter`] knows nothing of users: whatever should not happen too often under one key takes
//! one of them, requests by user as well as attempts by address.

use std::collections::HashMap;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock, Reference};
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::ShrinkableKeyedStateStore;
use governor::{Quota, RateLimiter as Gcra};
use http::header::{HeaderName, HeaderValue};

/// Keys with a bucket of their own: at most some 200 bytes each, so 10 MB a table. Beyond it, full
/// buckets are dropped (they say no more than none does); if that makes no room, keys that are not
/// in the table share one bucket. So a flood of invented names slows down newcomers, and nobody who
/// was there before.
const KEYS_MAX: usize = 50_000;
/// Below so many keys nothing is swept.
const KEYS_KEPT: usize = 1024;
/// How often a table is swept at most while it is full: a sweep looks at all of it, in about 1 ms.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

pub(crate) const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(crate) const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// How many may come: `per_s` in the long run, `burst` at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) per_s: NonZeroU32,
    pub(crate) burst: NonZeroU32,
}

impl Rate {
    /// Whole seconds in which so many tokens come back.
    fn seconds_for(self, tokens: u32) -> u64 {
        u64::from(tokens).div_ceil(u64::from(self.per_s.get()))
    }
}

/// What a bucket said of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    rate: Rate,
    /// How many more may come at once.
    pub(crate) remaining: u32,
    /// Refused, and after this long one may come again.
    pub(crate) wait: Option<Duration>,
}

impl Verdict {
    /// Whole seconds for `Retry-After`: rounded up, so that who keeps to it is served.
    pub(crate) fn retry_after_s(&self) -> Option<u64> {
        self.wait.map(|wait| whole_seconds(wait).max(1))
    }

    /// `RateLimit-Policy` and `RateLimit`, as draft-ietf-httpapi-ratelimit-headers has them: the
    /// burst and the seconds in which an empty bucket is full, then what is left and the seconds
    /// until it is full again.
    pub(crate) fn headers(&self, policy: &str) -> [(HeaderName, HeaderValue); 2] {
        let Rate { burst, .. } = self.rate;
        let window = self.rate.seconds_for(burst.get());
        let reset = self.rate.seconds_for(burst.get() - self.remaining.min(burst.get()));
        let header = |text: String| HeaderValue::try_from(text).expect("a policy is a word, the rest digits");
        [
            (RATE_LIMIT_POLICY, header(format!("\"{policy}\";q={burst};w={window}"))),
            (
                RATE_LIMIT,
                header(format!("\"{policy}\";r={};t={reset}", self.remaining)),
            ),
        ]
    }
}

fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// One bucket for each key.
pub(crate) struct RateLimiter<K: Hash + Eq + Clone, C: Clock = DefaultClock> {
    rate: Rate,
    keys_max: usize,
    gcra: Gcra<K, Table<K>, C, StateInformationMiddleware>,
    /// When to sweep next; held for a few instructions or for the sweep, never across an await.
    sweep: Mutex<Sweep<C::Instant>>,
}

struct Sweep<I> {
    at_keys: usize,
    last: Option<I>,
}

impl<K: Hash + Eq + Clone> RateLimiter<K> {
    pub(crate) fn new(rate: Rate) -> Self {
        Self::with(rate, KEYS_MAX, DefaultClock::default())
    }
}

impl<K: Hash + Eq + Clone, C: Clock> RateLimiter<K, C> {
    fn with(rate: Rate, keys_max: usize, clock: C) -> Self {
        let quota = Quota::per_second(rate.per_s).allow_burst(rate.burst);
        Self {
            rate,
            keys_max,
            gcra: Gcra::new(quota, Table::new(keys_max), clock),
            sweep: Mutex::new(Sweep {
                at_keys: KEYS_KEPT.min(keys_max),
                last: None,
            }),
        }
    }

    /// Takes a token from the key's bucket, if there is one.
    pub(crate) fn check(&self, key: &K) -> Verdict {
        self.sweep_if_due();
        match self.gcra.check_key(key) {
            Ok(state) => Verdict {
                rate: self.rate,
                remaining: state.remaining_burst_capacity(),
                wait: None,
            },
            Err(until) => Verdict {
                rate: self.rate,
                remaining: 0,
                wait: Some(until.wait_time_from(self.gcra.clock().now())),
            },
        }
    }

    /// Whenever the table has doubled, so that a sweep costs each new key little.
    fn sweep_if_due(&self) {
        let keys = self.gcra.len();
        let mut sweep = self.sweep.lock().expect("nothing panics while it holds the lock");
        let now = self.gcra.clock().now();
        let is_early = sweep
            .last
            .is_some_and(|last| now.duration_since(last) < SWEEP_EVERY.into());
        if keys < sweep.at_keys || (is_early && keys >= self.keys_max) {
            return;
        }
        self.gcra.retain_recent();
        sweep.last = Some(now);
        sweep.at_keys = (self.gcra.len() * 2).max(KEYS_KEPT).min(self.keys_max);
    }
}

/// The buckets. A lock held for one look-up is enough: what is limited takes longer than that.
struct Table<K> {
    keys_max: usize,
    buckets: Mutex<Buckets<K>>,
}

struct Buckets<K> {
    own: HashMap<K, Nanos>,
    /// Of the keys for which there was no room.
    shared: Option<Nanos>,
}

impl<K> Table<K> {
    fn new(keys_max: usize) -> Self {
        Self {
            keys_max,
            buckets: Mutex::new(Buckets {
                own: HashMap::new(),
                shared: None,
            }),
        }
    }

    fn buckets(&self) -> MutexGuard<'_, Buckets<K>> {
        self.buckets.lock().expect("nothing panics while it holds the lock")
    }
}

impl<K: Hash + Eq + Clone> StateStore for Table<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let buckets = &mut *self.buckets();
        let full = buckets.own.len() >= self.keys_max;
        if let Some(bucket) = buckets.own.get_mut(key) {
            let (answer, next) = decide(Some(*bucket))?;
            *bucket = next;
            Ok(answer)
        } else if full {
            let (answer, next) = decide(buckets.shared)?;
            buckets.shared = Some(next);
            Ok(answer)
        } else {
            let (answer, next) = decide(None)?;
            buckets.own.insert(key.clone(), next);
            Ok(answer)
        }
    }
}

impl<K: Hash + Eq + Clone> ShrinkableKeyedStateStore<K> for Table<K> {
    fn retain_recent(&self, drop_below: Nanos) {
        let mut buckets = self.buckets();
        buckets.own.retain(|_, bucket| *bucket > drop_below);
        let half = buckets.own.capacity() / 2;
        buckets.own.shrink_to(half);
    }

    fn len(&self) -> usize {
        self.buckets().own.len()
    }

    fn is_empty(&self) -> bool {
        self.buckets().own.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    fn rate(per_s: u32, burst: u32) -> Rate {
        Rate {
            per_s: NonZeroU32::new(per_s).unwrap(),
            burst: NonZeroU32::new(burst).unwrap(),
        }
    }

    fn text(verdict: Verdict) -> String {
        let headers = verdict.headers("user");
        let values: Vec<_> = headers.iter().map(|(_, value)| value.to_str().unwrap()).collect();
        values.join(" ")
    }

    #[test]
    fn a_burst_then_the_rate_and_the_wait_is_the_real_one() {
        let clock = FakeRelativeClock::default();
        let limiter = RateLimiter::with(rate(2, 3), 10, clock.clone());
        let first = limiter.check(&"ann");
        assert_eq!((first.remaining, first.wait), (2, None));
        assert_eq!(text(first), "\"user\";q=3;w=2 \"user\";r=2;t=1");
        limiter.check(&"ann");
        assert_eq!(limiter.check(&"ann").remaining, 0);
        clock.advance(Duration::from_millis(200));
        let refused = limiter.check(&"ann");
        assert_eq!(refused.wait, Some(Duration::from_millis(300)));
        assert_eq!(refused.retry_after_s(), Some(1));
        assert_eq!(text(refused), "\"user\";q=3;w=2 \"user\";r=0;t=2");
        assert_eq!(limiter.check(&"bob").remaining, 2, "each has his own");
        clock.advance(Duration::from_millis(300));
        assert_eq!(limiter.check(&"ann").wait, None);
        assert!(limiter.check(&"ann").wait.is_some());
    }

    #[test]
    fn a_long_wait_is_rounded_up_to_whole_seconds() {
        let verdict = |wait| Verdict {
            rate: rate(1, 1),
            remaining: 0,
            wait: Some(wait),
        };
        assert_eq!(verdict(Duration::from_millis(1001)).retry_after_s(), Some(2));
        assert_eq!(verdict(Duration::from_secs(2)).retry_after_s(), Some(2));
        assert_eq!(verdict(Duration::ZERO).retry_after_s(), Some(1));
    }

    #[test]
    fn a_full_table_drops_full_buckets_and_then_newcomers_share_one() {
        let clock = FakeRelativeClock::default();
        let limiter = RateLimiter::with(rate(1, 2), 3, clock.clone());
        for key in 0..3 {
            assert_eq!(limiter.check(&key).remaining, 1);
        }
        // No bucket is full again yet.
        assert_eq!(limiter.check(&3).remaining, 1);
        assert_eq!(limiter.check(&4).remaining, 0, "3 and 4 share one");
        assert!(limiter.check(&5).wait.is_some());
        assert_eq!(limiter.check(&0).remaining, 0, "who was there keeps his own");
        assert_eq!(limiter.gcra.len(), 3);
        clock.advance(Duration::from_secs(10));
        assert_eq!(limiter.check(&6).remaining, 1);
        assert_eq!(limiter.gcra.len(), 1, "full buckets were dropped");
    }

    #[test]
    fn a_table_is_swept_as_it_grows() {
        let clock = FakeRelativeClock::default();
        let limiter = RateLimiter::with(rate(1000, 1), KEYS_MAX, clock.clone());
        for key in 0..20 * KEYS_KEPT {
            limiter.check(&key);
            clock.advance(Duration::from_millis(1));
        }
        assert!(limiter.gcra.len() <= 2 * KEYS_KEPT, "{}", limiter.gcra.len());
    }
}
