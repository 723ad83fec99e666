//! `locks`: owners who wait for one another. What is measured is the hand-over: from the moment at which one begins
//! to give the lock back until the next knows that he has it.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use quorate_client::wire::AcquireLock;
use reqwest::header::HeaderMap;
use reqwest::{Method, Url};
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::http::{Http, encode, parse};
use super::stage::Stage;
use crate::target::{Call, Done, Fault, Target, Unheld};

/// As many as the contract has wait for one lock, with the one who holds it.
pub const OWNERS_MAX: usize = 1000;
/// Longer than any hand-over, and short enough that a run goes on after a holder was lost.
const TTL: Duration = Duration::from_secs(10);

const KINDS: [&str; 2] = ["hand-over", "acquire"];
const HAND_OVER: usize = 0;
/// The lock was free: the time of the call.
const ACQUIRE: usize = 1;

/// Owners are the clients of the plan, spread over the locks.
#[derive(Debug)]
pub struct Locks {
    http: Arc<Http>,
    headers: HeaderMap,
    locks: Vec<Held>,
    hold: Duration,
    wait: Duration,
}

/// One lock, and what those in this process know of it.
#[derive(Debug)]
struct Held {
    name: String,
    urls: Vec<Url>,
    /// Held for a few comparisons, never across an await.
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Somebody here holds it and has not begun to give it back.
    holder: Option<u64>,
    last_token: u64,
    released: Option<Instant>,
}

impl Held {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("no holder of this lock panics")
    }
}

/// Marks the lock as held by nobody here when its owner gives it back, or is dropped before he can.
struct Holder<'a>(&'a Held);

impl Drop for Holder<'_> {
    fn drop(&mut self) {
        let mut known = self.0.known();
        known.holder = None;
        known.released = Some(Instant::now());
    }
}

impl Locks {
    /// `wait` is what an owner is ready to wait: the plan's time for an answer must be longer.
    ///
    /// # Errors
    /// For more owners of a lock than may wait for it.
    pub fn new(
        http: Arc<Http>,
        stage: &Stage,
        locks: usize,
        owners: usize,
        hold: Duration,
        wait: Duration,
    ) -> Result<Self> {
        ensure!(locks > 0, "at least one lock");
        ensure!(
            owners.div_ceil(locks) <= OWNERS_MAX,
            "{owners} owners of {locks} locks: at most {OWNERS_MAX} may wait for one"
        );
        ensure!(hold < TTL / 2, "a lock is held for less than {:?}", TTL / 2);
        let make = |index| {
            let name = stage.name(&format!("l{index}"));
            Held {
                urls: http.urls(&format!("/v1/locks/{}", encode(&name))),
                name,
                known: Mutex::default(),
            }
        };
        Ok(Self {
            locks: (0..locks).map(make).collect(),
            headers: http.headers(stage.user_of(0).as_deref()),
            http,
            hold,
            wait,
        })
    }

    /// The lock was granted: is that possible?
    fn granted<'a>(&self, lock: &'a Held, token: u64, asked: Instant) -> Result<(Holder<'a>, usize, Duration), Fault> {
        let now = Instant::now();
        let mut known = lock.known();
        let name = &lock.name;
        if let Some(holder) = known.holder {
            return Err(Fault::Wrong(format!(
                "{name} was granted with {token} while {holder} held it"
            )));
        }
        if token <= known.last_token {
            let last = known.last_token;
            return Err(Fault::Wrong(format!("{name} was granted with {token} after {last}")));
        }
        known.holder = Some(token);
        known.last_token = token;
        let (kind, since) = match known.released {
            Some(released) if released >= asked => (HAND_OVER, released),
            _ => (ACQUIRE, asked),
        };
        drop(known);
        Ok((Holder(lock), kind, now - since))
    }
}

impl Target for Locks {
    type Receipt = Infallible;

    fn kinds(&self) -> &'static [&'static str] {
        &KINDS
    }

    async fn perform(&self, call: Call) -> Result<Done<Infallible>, Fault> {
        #[derive(Deserialize)]
        struct Token {
            token: u64,
        }
        let lock = &self.locks[call.client % self.locks.len()];
        let url = &lock.urls[call.client % lock.urls.len()];
        let wanted = AcquireLock {
            owner: format!("owner-{}", call.client),
            ttl_ms: TTL.as_millis() as u64,
            wait_ms: Some(self.wait.as_millis() as u64),
            ..AcquireLock::default()
        };
        let body = serde_json::to_vec(&wanted).expect("wire types have no keys but strings");
        let asked = Instant::now();
        let request = self
            .http
            .ask(call.client, Method::PUT, url.clone(), &self.headers, body.into());
        let Token { token } = parse(&request.await?)?;
        let (holder, kind, took) = self.granted(lock, token, asked)?;
        if !self.hold.is_zero() {
            sleep(self.hold).await;
        }
        drop(holder);
        let mut release = url.clone();
        release.set_query(Some(&format!("token={token}")));
        let done = self
            .http
            .ask(call.client, Method::DELETE, release, &self.headers, Bytes::new());
        done.await?;
        Ok(Done {
            kind,
            took: Some(took),
            ..Done::one(None)
        })
    }

    async fn read_back(&self, receipt: &Infallible) -> Result<(), Unheld> {
        match *receipt {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held() -> Held {
        Held {
            name: "l".into(),
            urls: Vec::new(),
            known: Mutex::default(),
        }
    }

    fn locks() -> Locks {
        let wiring = super::super::Wiring {
            nodes: vec!["http://127.0.0.1:1".into()],
            token: None,
            user: None,
            protocol: super::super::Protocol::Http1,
            connections: 1,
        };
        let http = Arc::new(Http::new(&wiring).unwrap());
        Locks {
            headers: http.headers(None),
            http,
            locks: Vec::new(),
            hold: Duration::ZERO,
            wait: Duration::ZERO,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_hand_over_counts_from_the_release_and_two_holders_are_a_lie() {
        let (locks, lock) = (locks(), held());
        let asked = Instant::now();
        let (holder, kind, _) = locks.granted(&lock, 3, asked).unwrap();
        assert_eq!(kind, ACQUIRE);
        let second = locks.granted(&lock, 4, asked).map(drop);
        assert!(matches!(second, Err(Fault::Wrong(_))), "{second:?}");
        drop(holder);
        sleep(Duration::from_millis(7)).await;
        let old = locks.granted(&lock, 3, asked).map(drop);
        assert!(matches!(old, Err(Fault::Wrong(_))), "{old:?}");
        let (_, kind, took) = locks.granted(&lock, 5, asked).unwrap();
        assert_eq!((kind, took), (HAND_OVER, Duration::from_millis(7)));
    }
}
