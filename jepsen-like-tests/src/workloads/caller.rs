//! A client as a workload has it: it picks nodes by its own dice, keeps away from one that did not serve it,
//! waits no longer than it must, and says what an answer means.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Stage;
use crate::history::{Entry, Kind, Process};
use crate::http::{Answer, Call, NoAnswer};

/// What a node is given for a request: longer than an election, short against a fault.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// How long past it a client waits for a node that may be paused or gone.
const PATIENCE: Duration = Duration::from_millis(500);
/// A node that did not serve is left alone for so long, so that one dead node of five does not hold up every
/// client in every fifth operation.
const SHUNNED: Duration = Duration::from_secs(2);
/// One in so many operations goes to any node, shunned or not: what a broken node answers is of interest too.
const REGARDLESS: u32 = 16;
/// After an answer that says "not now", so that a cluster without a leader is not flooded. With some chance in
/// it, so that clients do not come in waves.
const BACK_OFF_MS: std::ops::Range<u64> = 20..100;

/// Between two operations, so that the clients of all workloads leave time to the nodes on the same machine.
const THINK: Duration = Duration::from_millis(3);

/// What came of a request that is to change something.
#[derive(Debug)]
pub enum Written {
    Done(Answer),
    /// It certainly did not happen.
    Refused(String),
    /// It may have happened, or still may.
    Unknown(String),
}

pub struct Caller {
    pub stage: Arc<Stage>,
    /// In whose name the next operation is recorded.
    pub process: Process,
    pub dice: ChaCha8Rng,
    shunned: BTreeMap<u64, Instant>,
}

impl Caller {
    /// The client of this number of a workload. Workloads that differ by `salt` throw different dice.
    pub fn new(stage: &Arc<Stage>, salt: u64, number: u64) -> Self {
        let mut dice = ChaCha8Rng::seed_from_u64(stage.seed);
        dice.set_stream(salt << 32 | number);
        Self {
            stage: stage.clone(),
            process: stage.history.new_client(),
            dice,
            shunned: BTreeMap::new(),
        }
    }

    /// Whether there is to be another operation; a moment passes before it.
    pub async fn goes_on(&self) -> bool {
        tokio::time::sleep(THINK).await;
        !self.stage.is_stopping()
    }

    /// The node for the next request.
    pub fn node(&mut self) -> u64 {
        let all = self.stage.cluster.ids();
        let now = Instant::now();
        self.shunned.retain(|_, until| *until > now);
        let served: Vec<u64> = all
            .iter()
            .copied()
            .filter(|id| !self.shunned.contains_key(id))
            .collect();
        let from = match served.is_empty() || self.dice.random_ratio(1, REGARDLESS) {
            true => &all,
            false => &served,
        };
        from[self.dice.random_range(0..from.len())]
    }

    /// Sends the call, which waits at most a moment longer than the node is given.
    async fn ask(&mut self, node: u64, call: Call) -> Result<Answer, (bool, String)> {
        let call = call.timeout(REQUEST_TIMEOUT);
        let answer = tokio::time::timeout(REQUEST_TIMEOUT + PATIENCE, self.stage.cluster.send(node, call)).await;
        let (sent, error) = match answer {
            Ok(Ok(answer)) if answer.status < 500 => return Ok(answer),
            Ok(Ok(answer)) => {
                self.shunned.insert(node, Instant::now() + SHUNNED);
                return Ok(answer);
            }
            Ok(Err(error @ NoAnswer::NotSent(_))) => (false, error.to_string()),
            Ok(Err(error @ NoAnswer::Unknown(_))) => (true, error.to_string()),
            Err(_) => (true, "no answer in time".to_owned()),
        };
        self.shunned.insert(node, Instant::now() + SHUNNED);
        Err((sent, error))
    }

    /// Asks for a change. An error is an answer that the contract does not allow here.
    pub async fn write(&mut self, node: u64, call: Call) -> Result<Written> {
        let what = format!("{} {}", call.method, call.path);
        let answer = match self.ask(node, call).await {
            Ok(answer) => answer,
            Err((false, error)) => return Ok(Written::Refused(error)),
            Err((true, error)) => return Ok(Written::Unknown(error)),
        };
        if (200..300).contains(&answer.status) {
            return Ok(Written::Done(answer));
        }
        let json = answer.json().unwrap_or_default();
        match (answer.status, json.get("outcome").and_then(serde_json::Value::as_str)) {
            // What a client may meet when it is right in itself: too much, no leader, stopping, a full disk.
            (429 | 500..=599, Some("not_applied")) => Ok(Written::Refused(answer.to_string())),
            (500..=599, _) => Ok(Written::Unknown(answer.to_string())),
            _ => bail!("{what} on node {node} is answered {answer}"),
        }
    }

    /// Asks for what is. None: the node could not say, and why.
    pub async fn read(&mut self, node: u64, call: Call) -> Result<Result<Answer, String>> {
        let what = format!("{} {}", call.method, call.path);
        let answer = match self.ask(node, call).await {
            Ok(answer) => answer,
            Err((_, error)) => return Ok(Err(error)),
        };
        match answer.status {
            200 => Ok(Ok(answer)),
            429 | 500..=599 => Ok(Err(answer.to_string())),
            _ => bail!("{what} on node {node} is answered {answer}"),
        }
    }

    /// Notes the beginning of an operation.
    pub fn begin(&self, f: &str, key: &str, entry: Entry) {
        self.note(Kind::Invoke, f, key, entry);
    }

    /// Notes its end. After an unknown one the client goes on as another process, since that operation may
    /// still take effect.
    pub fn end(&mut self, kind: Kind, f: &str, key: &str, entry: Entry) {
        self.note(kind, f, key, entry);
        if kind == Kind::Info {
            self.process = self.stage.history.new_client();
        }
    }

    fn note(&self, kind: Kind, f: &str, key: &str, entry: Entry) {
        let key = Some(key.to_owned());
        self.stage.history.record(self.process, kind, f, Entry { key, ..entry });
    }

    pub async fn back_off(&mut self) {
        let wait = self.dice.random_range(BACK_OFF_MS);
        tokio::time::sleep(Duration::from_millis(wait)).await;
    }
}
