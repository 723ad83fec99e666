//! How the clients of the workloads ask: what an answer means for the history, and repetitions under one key.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use super::Stage;
use crate::history::{Entry, Kind, Process};
use crate::http::{Answer, Call, NoAnswer};

/// A request that no node answers in this time is given up, its outcome unknown.
pub(super) const ATTEMPT: Duration = Duration::from_secs(2);
/// How long past the time that it was given a node may take to answer.
const MARGIN: Duration = Duration::from_millis(500);
/// A node that did not serve is left alone for so long, so that one that is paused does not take all clients with it.
const SHUNNED: Duration = Duration::from_secs(2);
/// One in so many operations goes to any node, shunned or not: what a broken node answers is of interest too.
const REGARDLESS: u32 = 16;
/// After an answer that says "not now", so that a cluster without a leader is not flooded. With some chance in
/// it, so that clients do not come in waves.
const BACK_OFF_MS: std::ops::Range<u64> = 20..100;
/// Between two looks whether a cluster is well.
const AGAIN_AFTER: Duration = Duration::from_millis(20);
/// How long preparing and draining wait for a cluster that is well.
pub(super) const WELL: Duration = Duration::from_secs(30);

/// What an answer means, by the contract.
#[derive(Debug)]
pub(super) enum Reply {
    /// Done, or refused for a reason that stands in the state: the same request under the same key would be
    /// answered alike.
    Decided(Answer),
    /// Certainly not done.
    NotApplied(String),
    /// Done, or not, or later.
    Unknown(String),
}

/// Sorts an answer. An error: it breaks the contract, or the workload does.
pub(super) fn sort_out(answer: Result<Answer, NoAnswer>) -> Result<Reply> {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error @ NoAnswer::NotSent(_)) => return Ok(Reply::NotApplied(error.to_string())),
        Err(error @ NoAnswer::Unknown(_)) => return Ok(Reply::Unknown(error.to_string())),
    };
    let json = answer.json().unwrap_or_default();
    let outcome = json.get("outcome").and_then(Value::as_str);
    match (answer.status, outcome) {
        (200 | 201 | 204, _) | (403 | 404 | 409 | 412, Some("not_applied")) => Ok(Reply::Decided(answer)),
        (429 | 503 | 507, Some("not_applied")) => Ok(Reply::NotApplied(answer.to_string())),
        (500.., _) => Ok(Reply::Unknown(answer.to_string())),
        _ => bail!("no answer that this request can get: {answer}"),
    }
}

/// Whether the answer is that to a repetition. Of a changed entity it shows the state by then, not that of the change.
pub(super) fn is_replayed(answer: &Answer) -> bool {
    answer.header("Idempotency-Replayed") == Some("true")
}

/// The seq that a message was given.
pub(super) fn seq_of(answer: &Answer) -> Result<u64> {
    let seq = answer.json()?.get("seq").and_then(Value::as_u64);
    seq.with_context(|| format!("a message without its seq: {answer}"))
}

/// One client: what it does is in the history under its process.
pub(super) struct Client {
    pub(super) stage: Arc<Stage>,
    pub(super) process: Process,
    pub(super) dice: ChaCha8Rng,
    /// Begins its keys and texts: no other client has it.
    pub(super) name: String,
    asked: u64,
    /// Nodes that did not answer, and until when they are not asked.
    shunned: BTreeMap<u64, Instant>,
}

impl Client {
    /// `kind` and `number` tell it from all others of the run.
    pub(super) fn new(stage: &Arc<Stage>, kind: &str, number: u64) -> Self {
        let mut dice = ChaCha8Rng::seed_from_u64(stage.seed);
        let kind_salt = kind
            .bytes()
            .fold(0_u32, |sum, byte| sum.rotate_left(5) ^ u32::from(byte));
        dice.set_stream(u64::from(kind_salt) << 32 | number);
        Self {
            stage: stage.clone(),
            process: stage.history.new_client(),
            dice,
            name: format!("{kind}{number}"),
            asked: 0,
            shunned: BTreeMap::new(),
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stage.is_stopping()
    }

    /// Any node of the cluster, but mostly one that serves.
    pub(super) fn node(&mut self) -> u64 {
        let now = Instant::now();
        self.shunned.retain(|_, until| *until > now);
        let mut nodes = self.stage.cluster.ids();
        let any_serves = nodes.iter().any(|node| !self.shunned.contains_key(node));
        if any_serves && !self.dice.random_ratio(1, REGARDLESS) {
            nodes.retain(|node| !self.shunned.contains_key(node));
        }
        nodes[self.dice.random_range(0..nodes.len())]
    }

    /// A name that was not used yet: a text, a key, an owner.
    pub(super) fn fresh(&mut self) -> String {
        self.asked += 1;
        format!("{}-{}", self.name, self.asked)
    }

    pub(super) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.dice.random_range(0..from.len())]
    }

    pub(super) fn record(&mut self, kind: Kind, f: &str, entry: Entry) {
        self.stage.history.record(self.process, kind, f, entry);
        if kind == Kind::Info {
            // It may still take effect: this process must not be seen to do anything else.
            self.process = self.stage.history.new_client();
        }
    }

    /// Writes down the end of an operation that came to nothing, or may have.
    pub(super) fn record_failure(&mut self, f: &str, key: &str, reply: Reply) {
        let (kind, error) = match reply {
            Reply::Decided(answer) => (Kind::Fail, answer.to_string()),
            Reply::NotApplied(error) => (Kind::Fail, error),
            Reply::Unknown(error) => (Kind::Info, error),
        };
        let (key, error) = (Some(key.to_owned()), Some(error));
        self.record(
            kind,
            f,
            Entry {
                key,
                error,
                ..Entry::default()
            },
        );
    }

    /// Leaves a node alone for a while that did not serve.
    pub(super) fn shun(&mut self, node: u64) {
        self.shunned.insert(node, Instant::now() + SHUNNED);
    }

    /// Asks the node once, for a call with the time-out [`ATTEMPT`].
    pub(super) async fn ask(&mut self, node: u64, call: Call) -> Result<Reply> {
        self.ask_for(node, call, Duration::ZERO).await
    }

    /// Asks the node once, for a call that may take so long beyond [`ATTEMPT`].
    pub(super) async fn ask_for(&mut self, node: u64, call: Call, wait: Duration) -> Result<Reply> {
        let limit = ATTEMPT + wait + MARGIN;
        let sent = self.stage.cluster.send(node, call.timeout(ATTEMPT + wait));
        let answer = tokio::time::timeout(limit, sent).await;
        if !matches!(&answer, Ok(Ok(answer)) if answer.status < 500) {
            self.shun(node);
        }
        match answer {
            Ok(answer) => sort_out(answer),
            Err(_) => Ok(Reply::Unknown(format!("no answer within {limit:?}"))),
        }
    }

    /// Asks the node, and under one key any node again, until somebody says what came of it or the time is up.
    /// `wait`: how long the call may take beyond [`ATTEMPT`].
    pub(super) async fn settle(
        &mut self,
        mut node: u64,
        call: Call,
        wait: Duration,
        patience: Duration,
    ) -> Result<Reply> {
        let call = call.key(&self.fresh());
        let until = Instant::now() + wait + patience;
        let mut unknown = None;
        loop {
            match self.ask_for(node, call.clone(), wait).await? {
                Reply::Decided(answer) => return Ok(Reply::Decided(answer)),
                reply if Instant::now() >= until => {
                    return Ok(unknown.map_or(reply, Reply::Unknown));
                }
                Reply::NotApplied(_) => {}
                Reply::Unknown(error) => unknown = Some(error),
            }
            self.back_off().await;
            node = self.node();
        }
    }

    pub(super) async fn back_off(&mut self) {
        let wait = self.dice.random_range(BACK_OFF_MS);
        tokio::time::sleep(Duration::from_millis(wait)).await;
    }

    /// Thinks for up to so long.
    pub(super) async fn pause(&mut self, up_to: Duration) {
        let pause = up_to.mul_f64(self.dice.random_range(0.0..1.0));
        tokio::time::sleep(pause).await;
    }
}

/// Of a cluster that is well: the answer of this status, for which some attempts may be needed.
pub(super) async fn well(stage: &Stage, node: u64, call: Call, status: u16) -> Result<Answer> {
    let asked = format!("{} {}", call.method, call.path);
    let until = Instant::now() + WELL;
    loop {
        let reason = match stage.cluster.send(node, call.clone()).await {
            Ok(answer) if answer.status == status => return Ok(answer),
            Ok(answer) => answer.to_string(),
            Err(error) => error.to_string(),
        };
        ensure!(
            Instant::now() < until,
            "{asked}: not within {WELL:?}; at last: {reason}"
        );
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}
