//! Locks: the calls, and a guard for whoever holds one for longer.

use std::time::{Duration, Instant};

use reqwest::Method;

use crate::attempt::{Request, decode};
use crate::calls::{json, list};
use crate::client::Client;
use crate::error::Error;
use crate::path::{path, with_query};
use crate::wire::{AcquireLock, HeldLock, Lock, LockList, RenewLock};

/// A wait with less than this left is over.
const WAIT_MIN: Duration = Duration::from_millis(100);
/// A lock that was granted, and of which the caller does not hear, is given back within this time or by its ttl.
const GIVE_BACK_WITHIN: Duration = Duration::from_secs(5);
/// Between two requests for the same lock, when the first came to nothing before its time.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// As with the other calls, every one may end with any [`Error`].
impl Client {
    /// Takes the lock, or waits for it as long as `wanted` says, across failovers: the time of the call is that of
    /// the wait beside [`Options::deadline`](crate::Options::deadline). Held by another until the end: refused as
    /// `lock_held`.
    ///
    /// `expires_in_ms` counts from before this call. After a wait that may be long over: renew, to learn more.
    ///
    /// A wait that ends before its time, because the node at which it was went away, is begun anew at the end of
    /// the queue, unless the caller chose the key. A grant under the caller's own key that is over by now is refused as
    /// `lock_lost`.
    pub async fn acquire_lock(&self, lock: &str, wanted: &AcquireLock) -> Result<HeldLock, Error> {
        let path = path(&["locks", lock])?;
        let begun = Instant::now();
        let wait = Duration::from_millis(wanted.wait_ms.unwrap_or(0));
        let until = begun + wait + self.options.deadline;
        // As the caller says it the first time: under his own key a repetition must be the same request.
        let mut left = wait;
        loop {
            let asked = Instant::now();
            let body = AcquireLock {
                wait_ms: (!left.is_zero()).then_some(u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
                ..wanted.clone()
            };
            let request = Request::write(Method::PUT, path.clone(), Some(json(&body)), self.next_key()).waiting(left);
            let answer = self.execute(&request).await;
            let answer = answer.and_then(|bytes| decode::<HeldLock>(&bytes, true));
            let error = match answer {
                // It was granted to an earlier attempt, and perhaps given back since, because that one was gone.
                Ok(held) if held.expires_in_ms == 0 => {
                    let asked = Instant::now();
                    // The caller's own key is that of the acquisition.
                    match self.without_key().renew_lock(lock, held.token, None).await {
                        Ok(held) => return Ok(counted_from(begun, held, asked)),
                        // Under his key the answer would be the same again.
                        Err(error) if self.key.is_some() => return Err(error),
                        Err(error) if error.code() == Some("lock_lost") => error,
                        Err(error) => {
                            self.give_back(lock, held.token).await;
                            return Err(error);
                        }
                    }
                }
                Ok(held) => return Ok(counted_from(begun, held, asked)),
                Err(error) if error.code() == Some("lock_held") && self.key.is_none() => {
                    if wait.saturating_sub(begun.elapsed()) < WAIT_MIN {
                        return Err(error);
                    }
                    error
                }
                Err(error) => return Err(error),
            };
            if Instant::now() + ASK_AGAIN_AFTER >= until {
                return Err(error);
            }
            tokio::time::sleep(ASK_AGAIN_AFTER).await;
            left = wait.saturating_sub(begun.elapsed());
        }
    }

    /// Has the ttl begin anew; none: the one that the lock was taken with. Refused as `lock_lost` if it is not
    /// held with this token any more. `expires_in_ms` counts from before this call.
    ///
    /// It goes without a key, unless the caller chose one: a renewal twice is a renewal. So an attempt that is late may
    /// have an earlier `ttl_ms` count again; whoever shortens the ttl on the way keeps that in mind.
    pub async fn renew_lock(&self, lock: &str, token: u64, ttl_ms: Option<u64>) -> Result<HeldLock, Error> {
        let body = Some(json(&RenewLock { token, ttl_ms }));
        let path = path(&["locks", lock, "renew"])?;
        let request = match &self.key {
            Some(key) => Request::write(Method::POST, path, body, key.clone()),
            None => Request::renewal(path, body),
        };
        decode(&self.execute(&request).await?, true)
    }

    /// Gives the lock back. Refused as `lock_lost` if it is not held with this token any more.
    ///
    /// It goes without a key, unless the caller chose one. Refused so after an attempt whose answer was lost, it counts
    /// as given back.
    pub async fn release_lock(&self, lock: &str, token: u64) -> Result<(), Error> {
        let path = with_query(path(&["locks", lock])?, &[("token", Some(token.to_string()))]);
        let request = match &self.key {
            Some(key) => Request::write(Method::DELETE, path, None, key.clone()),
            None => Request::release(path),
        };
        self.execute(&request).await.map(drop)
    }

    /// Gives back what the caller will not hear of, as far as that is possible now; else its ttl does.
    async fn give_back(&self, lock: &str, token: u64) {
        let quickly = self.without_key().with_times(
            self.options.deadline.min(GIVE_BACK_WITHIN),
            self.options.attempt.min(GIVE_BACK_WITHIN),
        );
        if let Err(error) = quickly.release_lock(lock, token).await {
            tracing::debug!(lock, %error, "failed to give the lock back");
        }
    }

    /// Who holds the lock, and who waits for it. Never used, or not for a day: `not_found`.
    pub async fn lock(&self, lock: &str) -> Result<Lock, Error> {
        self.read(path(&["locks", lock])?).await
    }

    /// One page, by name; `limit` 1 to 500.
    pub async fn locks(&self, limit: u32, cursor: Option<&str>) -> Result<LockList, Error> {
        self.read(list(path(&["locks"])?, limit, cursor)).await
    }
}

/// The same end, counted from an earlier moment.
fn counted_from(begun: Instant, held: HeldLock, asked: Instant) -> HeldLock {
    let earlier = asked.saturating_duration_since(begun).as_millis();
    HeldLock {
        expires_in_ms: held
            .expires_in_ms
            .saturating_add(u64::try_from(earlier).unwrap_or(u64::MAX)),
        ..held
    }
}

/// A lock that is held, and until when that is certain. It renews nothing by itself: whoever works under the lock
/// calls [`LockGuard::renew`] every third of the ttl or so, and stops his work before [`LockGuard::certain_until`].
///
/// No clock is compared with another machine's: the store counts a ttl from when it has the request, this guard from
/// before it sent it. `Instant` stands still on Linux while the machine sleeps. What must be safe then too is guarded
/// by the token (`If-Lock`), which the store checks.
#[derive(Debug)]
pub struct LockGuard {
    client: Client,
    held: HeldLock,
    certain_until: Instant,
}

impl LockGuard {
    /// See [`Client::acquire_lock`].
    pub async fn acquire(client: &Client, lock: &str, wanted: &AcquireLock) -> Result<Self, Error> {
        let asked = Instant::now();
        let held = client.acquire_lock(lock, wanted).await?;
        let mut guard = Self {
            // The caller's own key is that of the acquisition.
            client: client.without_key(),
            certain_until: asked + Duration::from_millis(held.expires_in_ms),
            held,
        };
        // The wait has used up what was certain.
        if guard.certain_for() < Duration::from_millis(wanted.ttl_ms) / 2
            && let Err(error) = guard.renew().await
        {
            if error.code() != Some("lock_lost") {
                client.give_back(lock, guard.token()).await;
            }
            return Err(error);
        }
        Ok(guard)
    }

    pub fn lock(&self) -> &str {
        &self.held.lock
    }

    /// For `If-Lock`, and for whatever else can tell a late writer from the holder.
    pub fn token(&self) -> u64 {
        self.held.token
    }

    /// The lock is certainly held before that moment; after it somebody else may have it.
    pub fn certain_until(&self) -> Instant {
        self.certain_until
    }

    /// What is left of that.
    pub fn certain_for(&self) -> Duration {
        self.certain_until.saturating_duration_since(Instant::now())
    }

    /// Has the ttl begin anew. Refused as `lock_lost`, it is another's or nobody's. After any other error it is held
    /// until [`LockGuard::certain_until`] as before, and may be held for longer.
    pub async fn renew(&mut self) -> Result<(), Error> {
        let asked = Instant::now();
        let renewed = self.client.renew_lock(&self.held.lock, self.held.token, None).await?;
        // The latest answer counts, also if it says less.
        self.certain_until = asked + Duration::from_millis(renewed.expires_in_ms);
        Ok(())
    }

    /// Gives the lock back.
    pub async fn release(self) -> Result<(), Error> {
        self.client.release_lock(&self.held.lock, self.held.token).await
    }
}

#[cfg(test)]
mod tests;
