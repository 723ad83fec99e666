//! Locks: contenders that take, renew, lose and give back a few locks, and count under them. Two workloads: in one the
//! counters are guarded by the tokens, in the other, the control, by nothing but good faith.

mod contender;
mod fence;
mod holder;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use futures::future::BoxFuture;
use reqwest::Method;
use serde_json::{Value, json};

use self::contender::Contender;
use self::fence::Fence;
use super::asking::{ATTEMPT, Client, Reply, well};
use super::{Stage, Workload};
use crate::checker::Checker;
use crate::checker::locks::{DRAIN as DRAIN_LOCK, LockChecker};
use crate::checker::updates::{DRAIN as DRAIN_COUNTER, Updates};
use crate::history::{Entry, Kind};
use crate::http::{Answer, Call, encoded};

/// How contenders behave.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manners {
    /// Begins the names of its locks and counters.
    name: &'static str,
    locks: u64,
    contenders: u64,
    /// One of these for each attempt.
    ttls_ms: &'static [u64],
    waits_ms: &'static [u64],
    /// Whether writes name their token.
    is_fenced: bool,
    /// How often a client stops for longer than the ttl between reading and writing, as a long collection of garbage
    /// would have it do.
    long_pauses: f64,
}

const FENCED: Manners = Manners {
    name: "lock",
    locks: 3,
    contenders: 6,
    // Short, so that holds end by themselves within a run; 2 s is longer than an election.
    ttls_ms: &[500, 1000, 2000],
    waits_ms: &[0, 400, 3000],
    is_fenced: true,
    long_pauses: 0.08,
};

const UNFENCED: Manners = Manners {
    name: "unfenced",
    locks: 1,
    contenders: 3,
    ttls_ms: &[300],
    waits_ms: &[3000],
    is_fenced: false,
    long_pauses: 0.3,
};

/// How long the drain waits for a lock: the longest ttl, and an election.
const DRAIN_WAIT: Duration = Duration::from_secs(20);

/// Locks whose tokens guard what is done under them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Locks;

/// The control: the same on counters that know nothing of tokens. It must lose updates, or nothing was tried.
#[derive(Debug, Clone, Copy, Default)]
pub struct UnfencedLocks;

#[async_trait]
impl Workload for Locks {
    fn name(&self) -> &'static str {
        "locks"
    }

    fn about(&self) -> &'static str {
        "contenders for a few locks that renew, release, are cancelled or paused, and count under If-Lock"
    }

    async fn prepare(&self, stage: &Arc<Stage>) -> Result<()> {
        prepare(FENCED, stage).await
    }

    fn clients(&self, stage: &Arc<Stage>) -> Vec<BoxFuture<'static, Result<()>>> {
        clients(FENCED, stage)
    }

    async fn drain(&self, stage: &Arc<Stage>) -> Result<()> {
        drain(FENCED, stage).await
    }

    fn checkers(&self) -> Vec<Box<dyn Checker>> {
        vec![Box::new(LockChecker), Box::new(Updates)]
    }
}

#[async_trait]
impl Workload for UnfencedLocks {
    fn name(&self) -> &'static str {
        "locks-unfenced"
    }

    fn about(&self) -> &'static str {
        "a control that must fail: holders that are paused beyond the ttl, and counters without fencing"
    }

    async fn prepare(&self, stage: &Arc<Stage>) -> Result<()> {
        prepare(UNFENCED, stage).await
    }

    fn clients(&self, stage: &Arc<Stage>) -> Vec<BoxFuture<'static, Result<()>>> {
        clients(UNFENCED, stage)
    }

    async fn drain(&self, stage: &Arc<Stage>) -> Result<()> {
        drain(UNFENCED, stage).await
    }

    fn checkers(&self) -> Vec<Box<dyn Checker>> {
        vec![Box::new(LockChecker), Box::new(Updates)]
    }
}

fn lock(manners: &Manners, number: u64) -> String {
    format!("{}-{number}", manners.name)
}

/// The counter that is counted under the lock.
fn counter(lock: &str) -> String {
    format!("counter-{lock}")
}

fn counter_path(counter: &str) -> String {
    format!("/v1/users/{}", encoded(counter))
}

fn lock_path(lock: &str) -> String {
    format!("/v1/locks/{}", encoded(lock))
}

/// Where the counter is, as an answer shows it.
fn counted(answer: &Answer) -> Result<u64> {
    let user = answer.json()?;
    let shown = user.get("display_name").and_then(Value::as_str);
    let shown = shown.with_context(|| format!("a counter that shows nothing: {answer}"))?;
    shown.parse().with_context(|| format!("no number: {answer}"))
}

async fn prepare(manners: Manners, stage: &Arc<Stage>) -> Result<()> {
    let mut client = Client::new(stage, &format!("{}-begin", manners.name), 0);
    for lock in (0..manners.locks).map(|number| lock(&manners, number)) {
        let (node, key) = (client.node(), format!("begin-{lock}"));
        let call = Call::post("/v1/users", &json!({ "user": counter(&lock), "display_name": "0" }));
        well(stage, node, call.key(&key), 201).await?;
    }
    Ok(())
}

fn clients(manners: Manners, stage: &Arc<Stage>) -> Vec<BoxFuture<'static, Result<()>>> {
    let fence = Arc::new(Fence::default());
    let mut clients: Vec<BoxFuture<'static, Result<()>>> = Vec::new();
    for number in 0..manners.contenders {
        let client = Client::new(stage, manners.name, number);
        let contender = Contender {
            client,
            manners,
            fence: fence.clone(),
        };
        clients.push(Box::pin(contender.work()));
    }
    if manners.is_fenced {
        let onlooker = Client::new(stage, "onlooker", 0);
        clients.push(Box::pin(contender::look_on(onlooker, manners)));
    }
    clients
}

/// Each lock can be taken, and each counter is read, when all is well again.
async fn drain(manners: Manners, stage: &Arc<Stage>) -> Result<()> {
    for number in 0..manners.locks {
        let lock = lock(&manners, number);
        let mut client = Client::new(stage, &format!("{}-end", manners.name), number);
        let node = client.node();
        let entry = |key: &str| Entry {
            key: Some(key.to_owned()),
            node: Some(node),
            ..Entry::default()
        };
        client.record(Kind::Invoke, DRAIN_LOCK, entry(&lock));
        let wait_ms = u64::try_from(DRAIN_WAIT.as_millis())?;
        let ask = json!({ "owner": client.fresh(), "ttl_ms": 500, "wait_ms": wait_ms });
        let call = Call::put(lock_path(&lock), &ask);
        match client.settle(node, call, DRAIN_WAIT, ATTEMPT).await? {
            Reply::Decided(answer) if answer.status == 200 => {
                let token = answer
                    .json()?
                    .get("token")
                    .and_then(Value::as_u64)
                    .context("a grant without a token")?;
                client.record(Kind::Ok, DRAIN_LOCK, entry(&lock));
                let release = Call::new(Method::DELETE, format!("{}?token={token}", lock_path(&lock)));
                client.settle(node, release, Duration::ZERO, ATTEMPT).await?;
            }
            reply => client.record_failure(DRAIN_LOCK, &lock, reply),
        }
        let counter = counter(&lock);
        client.record(Kind::Invoke, DRAIN_COUNTER, entry(&counter));
        let answer = well(stage, node, Call::get(counter_path(&counter)), 200).await?;
        let value = Some(json!(counted(&answer)?));
        client.record(
            Kind::Ok,
            DRAIN_COUNTER,
            Entry {
                value,
                ..entry(&counter)
            },
        );
    }
    Ok(())
}
