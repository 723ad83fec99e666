//! What is done under a lock: renewals, additions to its counter, writes to the fenced resource, and at the end a release,
//! or nothing, so that it expires.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use rand::RngExt;
use reqwest::Method;
use serde_json::{Value, json};

use super::fence::Fence;
use super::{Manners, counted, counter, counter_path, lock_path};
use crate::checker::locks::{FENCE, LOST, RELEASE, RENEW, Under};
use crate::checker::updates::{ADD, Added, Addition};
use crate::history::{Entry, Kind};
use crate::http::{Answer, Call, encoded};
use crate::workloads::asking::{ATTEMPT, Client, Reply};

/// Deeds of one hold.
const DEEDS_MAX: u64 = 4;
/// How often a lock is not given back.
const ABANDONED: f64 = 0.25;
/// What a long pause is, in ttls.
const LONG_PAUSE: f64 = 1.6;

pub(super) struct Hold<'a> {
    pub(super) client: &'a mut Client,
    pub(super) manners: Manners,
    pub(super) fence: &'a Fence,
    pub(super) lock: &'a str,
    pub(super) token: u64,
    pub(super) ttl: Duration,
}

/// Whether there is anything left to do under the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goes {
    On,
    /// Nothing more may be written: what was written before may come later.
    Back,
    Lost,
}

impl Hold<'_> {
    pub(super) async fn work(mut self) -> Result<()> {
        let deeds = self.client.dice.random_range(1..=DEEDS_MAX);
        let mut goes = Goes::On;
        for _ in 0..deeds {
            goes = match self.client.dice.random_range(0..10) {
                0..3 => self.renew().await?,
                3..5 => self.write_to_fence(),
                _ => self.add().await?,
            };
            if goes != Goes::On {
                break;
            }
        }
        if goes != Goes::Lost && !self.client.dice.random_bool(ABANDONED) {
            self.release().await?;
        }
        Ok(())
    }

    fn entry(&self, key: &str, node: u64) -> Entry {
        Entry {
            key: Some(key.to_owned()),
            node: Some(node),
            ..Entry::default()
        }
    }

    async fn renew(&mut self) -> Result<Goes> {
        let (node, token) = (self.client.node(), self.token);
        // Without a ttl it is renewed for as long as before.
        let ttl_ms = self
            .client
            .dice
            .random_bool(0.5)
            .then(|| u64::try_from(self.ttl.as_millis()))
            .transpose()?;
        let under = Under { token, ttl_ms };
        let entry = self.entry(self.lock, node);
        let value = Some(json!(under));
        self.client
            .record(Kind::Invoke, RENEW, Entry { value, ..entry.clone() });
        let call = Call::post(format!("{}/renew", lock_path(self.lock)), &json!(under));
        // As the contract advises: without a key.
        let reply = self.client.ask(node, call).await?;
        self.end(RENEW, entry, reply, 200, |_| Ok((None, None)))
    }

    async fn release(&mut self) -> Result<()> {
        let (node, token) = (self.client.node(), self.token);
        let entry = self.entry(self.lock, node);
        let value = Some(json!(Under { token, ttl_ms: None }));
        self.client
            .record(Kind::Invoke, RELEASE, Entry { value, ..entry.clone() });
        let call = Call::new(Method::DELETE, format!("{}?token={token}", lock_path(self.lock)));
        let reply = self.client.settle(node, call, Duration::ZERO, ATTEMPT).await?;
        self.end(RELEASE, entry, reply, 204, |_| Ok((None, None)))?;
        Ok(())
    }

    /// Reads the counter, and sets it to one more.
    async fn add(&mut self) -> Result<Goes> {
        let (node, token, is_fenced) = (self.client.node(), self.token, self.manners.is_fenced);
        let counter = counter(self.lock);
        let lock = self.lock.to_owned();
        let entry = self.entry(&counter, node);
        let value = Some(json!(Addition { lock, token, is_fenced }));
        self.client.record(Kind::Invoke, ADD, Entry { value, ..entry.clone() });
        let read = match self.client.ask(node, Call::get(counter_path(&counter))).await? {
            Reply::Decided(answer) if answer.status == 200 => answer,
            Reply::Decided(answer) => bail!("a counter is there: {answer}"),
            // Nothing was written.
            Reply::NotApplied(error) | Reply::Unknown(error) => {
                self.client.record_failure(ADD, &counter, Reply::NotApplied(error));
                return Ok(Goes::On);
            }
        };
        let from = counted(&read)?;
        if self.client.dice.random_bool(self.manners.long_pauses) {
            tokio::time::sleep(self.ttl.mul_f64(LONG_PAUSE)).await;
        }
        let body = json!({ "display_name": (from + 1).to_string() });
        let mut call = Call::new(Method::PATCH, counter_path(&counter)).json(&body);
        if is_fenced {
            call = call.header("If-Lock", format!("{};token={token}", encoded(self.lock)));
        }
        let reply = self.client.settle(node, call, Duration::ZERO, ATTEMPT).await?;
        self.end(ADD, entry, reply, 200, |answer| {
            let rev = answer.json()?.get("rev").and_then(Value::as_u64);
            let rev = rev.with_context(|| format!("no rev: {answer}"))?;
            // A repetition shows the counter as it is by then: nobody says at which rev this one was written.
            let rev = (counted(answer)? == from + 1).then_some(rev);
            Ok((Some(json!(Added { from })), rev))
        })
    }

    fn write_to_fence(&mut self) -> Goes {
        let token = self.token;
        let entry = Entry {
            key: Some(self.lock.to_owned()),
            ..Entry::default()
        };
        let value = Some(json!(Under { token, ttl_ms: None }));
        self.client
            .record(Kind::Invoke, FENCE, Entry { value, ..entry.clone() });
        let seq = self.fence.write(self.lock, token);
        let kind = if seq.is_some() { Kind::Ok } else { Kind::Fail };
        self.client.record(kind, FENCE, Entry { seq, ..entry });
        if seq.is_some() { Goes::On } else { Goes::Lost }
    }

    /// Writes down the end of what was asked, and says how it goes on.
    fn end(
        &mut self,
        f: &str,
        entry: Entry,
        reply: Reply,
        status: u16,
        done: impl FnOnce(&Answer) -> Result<(Option<Value>, Option<u64>)>,
    ) -> Result<Goes> {
        match reply {
            Reply::Decided(answer) if answer.status == status => {
                let (value, rev) = done(&answer)?;
                self.client.record(Kind::Ok, f, Entry { value, rev, ..entry });
                Ok(Goes::On)
            }
            Reply::Decided(answer) if answer.status == 412 && answer.code() == "lock_lost" => {
                let (value, error) = (Some(json!(LOST)), Some(answer.to_string()));
                self.client.record(Kind::Fail, f, Entry { value, error, ..entry });
                Ok(Goes::Lost)
            }
            Reply::Decided(answer) => bail!("{f}: {answer}"),
            reply => {
                let goes = if matches!(reply, Reply::Unknown(_)) {
                    Goes::Back
                } else {
                    Goes::On
                };
                self.client
                    .record_failure(f, entry.key.as_deref().unwrap_or_default(), reply);
                Ok(goes)
            }
        }
    }
}
