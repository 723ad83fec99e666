//! The lock checker: does each lock have one holder at a time, for as long as it was promised, in the order of tokens?
//!
//! A lock exposes its order: each grant has a token, and everything done under it says that token. So there is one order
//! to judge: the grant of a token, what was done and seen under it, its release, what was seen of the free lock, then the
//! next token. In it each operation must find a moment between its own beginning and end, as for registers; and nothing
//! may stand behind a hold before that hold could have ended.
//!
//! **When a hold can have ended**, by the clock of the clients alone: it was granted not before its holder asked and not
//! before every change that stands before it (a look is none: the ttl counts from when the grant was proposed, and what
//! is proposed is seen only once it is committed); it lasts at least its ttl from there, and at least the ttl of a renewal from
//! when that was asked for; or until its holder asked for its release. Nothing is said of how long it lasts at most:
//! the store's clock stands still without a leader.
//!
//! **Who waits** is known by an owner's name that is used for one attempt only. Whoever was refused, was seen to be gone
//! or gave the lock back must never wait or hold again; nobody is served before another who waited before him.
//!
//! | `f` | `key` | beginning | end |
//! |---|---|---|---|
//! | `lock.acquire` | lock | `value`: [`Acquire`] | `ok`: `value`: [`Granted`]; `fail`: the attempt is over; `info`: unknown, or cancelled by closing the connection |
//! | `lock.renew`, `lock.release` | lock | `value`: [`Under`] | `ok`; `fail` with `value` `"lost"`: told that the lock is lost; `fail` without: not done |
//! | `counter.add` | counter | see [`super::updates`] | `ok` also has `rev`, that of the write, where it is known; `fail` with `value` `"lost"` |
//! | `lock.look` | lock | | `ok`: `value`: [`Seen`], linearizable |
//! | `lock.drain` | lock | | `ok`: it could be taken in the end; `fail`: it could not |
//! | `fence.write` | lock | `value`: [`Under`] | `ok`: a resource outside accepted the token, `seq`: as its how many-th; `fail`: it had seen a greater one |

mod fences;
mod operations;
mod order;
mod owners;

#[cfg(test)]
mod tests;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{Checker, Judgement};
use crate::history::Event;

pub const ACQUIRE: &str = "lock.acquire";
pub const RENEW: &str = "lock.renew";
pub const RELEASE: &str = "lock.release";
pub const LOOK: &str = "lock.look";
pub const DRAIN: &str = "lock.drain";
pub const FENCE: &str = "fence.write";
/// `value` of an end: told that the lock is not held with this token.
pub const LOST: &str = "lost";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acquire {
    /// Of this attempt alone.
    pub owner: String,
    pub ttl_ms: u64,
    pub wait_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    pub token: u64,
    /// 0: it may be lost already.
    pub expires_in_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Under {
    pub token: u64,
    /// Of a renewal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
}

/// What a look shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub holder: Option<Holder>,
    /// Owners in the order in which they will be served.
    pub queue: Vec<String>,
    pub last_token: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub owner: String,
    pub token: u64,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct LockChecker;

impl Checker for LockChecker {
    fn name(&self) -> &'static str {
        "locks"
    }

    fn about(&self) -> &'static str {
        "one holder at a time and for the whole ttl, tokens only grow, nobody is served late, again or out of turn"
    }

    fn needs(&self) -> &'static [&'static str] {
        &["grants"]
    }

    fn check(&self, events: &[Event]) -> Result<Judgement> {
        let mut judgement = Judgement::default();
        let locks = operations::locks(events)?;
        for (name, lock) in &locks {
            let ends = order::check(name, lock, &mut judgement);
            fences::check(name, lock, &ends, &mut judgement);
            owners::check(name, lock, &mut judgement);
        }
        order::check_tokens(&locks, &mut judgement);
        operations::count(&locks, &mut judgement);
        Ok(judgement)
    }
}
