//! Registers: users whose display name is read, overwritten, and compared and set by `If-Match`, through all nodes.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use futures::future::BoxFuture;
use rand::RngExt;
use reqwest::Method;
use serde_json::{Value, json};

use super::asking::{Client, Reply, is_replayed, well};
use super::{Stage, Workload};
use crate::checker::Checker;
use crate::checker::register::{CAS, READ, RegisterChecker, WRITE};
use crate::checker::windows::Windows;
use crate::history::{Entry, Kind};
use crate::http::{Answer, Call, encoded};

/// Few, so that clients meet; more than one, since all share the order of revs.
const REGISTERS: usize = 4;
const CLIENTS: u64 = 6;
/// Between two operations: leaves time for the other workloads.
const THINK: Duration = Duration::from_millis(10);
/// How long half of the clients go on asking for what became of a write. The others give it up at once, so that
/// writes of unknown outcome are in the history too.
const PATIENCE: Duration = Duration::from_secs(6);

#[derive(Debug, Clone, Copy, Default)]
pub struct Registers;

#[async_trait]
impl Workload for Registers {
    fn name(&self) -> &'static str {
        "register"
    }

    fn about(&self) -> &'static str {
        "reads, writes and compare-and-sets (If-Match) of a few registers through all nodes"
    }

    async fn prepare(&self, stage: &Arc<Stage>) -> Result<()> {
        for number in 0..REGISTERS {
            let mut client = Client::new(stage, "register-begin", number as u64);
            let (name, value, node) = (register(number), client.fresh(), client.node());
            client.record(Kind::Invoke, WRITE, of(&name, Some(json!(value))));
            let call = Call::post("/v1/users", &json!({ "user": name, "display_name": value }));
            let answer = well(stage, node, call.key(&value), 201).await?;
            let (_, rev) = seen(&answer)?;
            let rev = Some(rev);
            client.record(Kind::Ok, WRITE, Entry { rev, ..of(&name, None) });
        }
        Ok(())
    }

    fn clients(&self, stage: &Arc<Stage>) -> Vec<BoxFuture<'static, Result<()>>> {
        let client = |number| -> BoxFuture<'static, Result<()>> {
            let client = Client::new(stage, "register", number);
            let patience = if number % 2 == 0 { PATIENCE } else { Duration::ZERO };
            let known = vec![None; REGISTERS];
            Box::pin(
                User {
                    client,
                    patience,
                    known,
                }
                .work(),
            )
        };
        (0..CLIENTS).map(client).collect()
    }

    /// Each register once more, as each node answers for it.
    async fn drain(&self, stage: &Arc<Stage>) -> Result<()> {
        for node in stage.cluster.ids() {
            let mut client = Client::new(stage, "register-end", node);
            for name in (0..REGISTERS).map(register) {
                let entry = Entry {
                    node: Some(node),
                    ..of(&name, None)
                };
                client.record(Kind::Invoke, READ, entry.clone());
                let answer = well(stage, node, Call::get(path(&name)), 200).await?;
                let (value, rev) = seen(&answer)?;
                let (value, rev) = (Some(json!(value)), Some(rev));
                client.record(Kind::Ok, READ, Entry { value, rev, ..entry });
            }
        }
        Ok(())
    }

    fn checkers(&self) -> Vec<Box<dyn Checker>> {
        vec![Box::new(RegisterChecker), Box::new(Windows)]
    }
}

fn register(number: usize) -> String {
    format!("register-{number}")
}

fn path(name: &str) -> String {
    format!("/v1/users/{}", encoded(name))
}

fn of(name: &str, value: Option<Value>) -> Entry {
    let key = Some(name.to_owned());
    Entry {
        key,
        value,
        ..Entry::default()
    }
}

/// The value and rev that an answer shows.
fn seen(answer: &Answer) -> Result<(String, u64)> {
    let user = answer.json()?;
    let value = user.get("display_name").and_then(Value::as_str);
    let rev = user.get("rev").and_then(Value::as_u64);
    let value = value.with_context(|| format!("a user without the name that he was given: {answer}"))?;
    Ok((value.to_owned(), rev.with_context(|| format!("no rev: {answer}"))?))
}

struct User {
    client: Client,
    patience: Duration,
    /// The rev of each register that was seen last.
    known: Vec<Option<u64>>,
}

impl User {
    async fn work(mut self) -> Result<()> {
        while !self.client.is_stopping() {
            let number = self.client.dice.random_range(0..REGISTERS);
            match (self.client.dice.random_range(0..10), self.known[number]) {
                (0..4, _) | (6.., None) => self.read(number).await?,
                (4..6, _) => self.write(number, None).await?,
                (_, rev) => self.write(number, rev).await?,
            }
            self.client.pause(THINK).await;
        }
        Ok(())
    }

    async fn read(&mut self, number: usize) -> Result<()> {
        let (name, node) = (register(number), self.client.node());
        let entry = Entry {
            node: Some(node),
            ..of(&name, None)
        };
        self.client.record(Kind::Invoke, READ, entry.clone());
        match self.client.ask(node, Call::get(path(&name))).await? {
            Reply::Decided(answer) if answer.status == 200 => {
                let (value, rev) = seen(&answer)?;
                self.known[number] = Some(rev);
                let (value, rev) = (Some(json!(value)), Some(rev));
                self.client.record(Kind::Ok, READ, Entry { value, rev, ..entry });
            }
            Reply::Decided(answer) => anyhow::bail!("a register is there: {answer}"),
            // A read that was not answered has done nothing.
            Reply::NotApplied(error) | Reply::Unknown(error) => {
                self.client.record_failure(READ, &name, Reply::NotApplied(error));
                self.client.back_off().await;
            }
        }
        Ok(())
    }

    /// With a rev: only if the register is at that rev.
    async fn write(&mut self, number: usize, if_rev: Option<u64>) -> Result<()> {
        let (name, node, text) = (register(number), self.client.node(), self.client.fresh());
        let mut call = Call::new(Method::PATCH, path(&name)).json(&json!({ "display_name": text }));
        let (f, value) = match if_rev {
            Some(rev) => {
                call = call.header("If-Match", format!("\"{rev}\""));
                (CAS, json!({ "if_rev": rev, "value": text }))
            }
            None => (WRITE, json!(text)),
        };
        let entry = Entry {
            node: Some(node),
            ..of(&name, None)
        };
        let value = Some(value);
        self.client.record(Kind::Invoke, f, Entry { value, ..entry.clone() });
        match self.client.settle(node, call, Duration::ZERO, self.patience).await? {
            Reply::Decided(answer) if answer.status == 200 => {
                let (value, rev) = seen(&answer)?;
                if value != text {
                    // A repetition shows the register as it is by then: it was written, nobody says at which rev.
                    anyhow::ensure!(
                        is_replayed(&answer),
                        "a write of {text:?} was answered with another value: {answer}"
                    );
                    let error = format!("applied, and overwritten since: {answer}");
                    self.client.record_failure(f, &name, Reply::Unknown(error));
                    return Ok(());
                }
                self.known[number] = Some(rev);
                let rev = Some(rev);
                self.client.record(Kind::Ok, f, Entry { rev, ..entry });
            }
            Reply::Decided(answer) if answer.status == 412 && if_rev.is_some() => {
                self.known[number] = None;
                let (rev, error) = (if_rev, Some(answer.code()));
                self.client.record(Kind::Fail, f, Entry { rev, error, ..entry });
            }
            Reply::Decided(answer) => anyhow::bail!("a register is there: {answer}"),
            reply => {
                self.client.record_failure(f, &name, reply);
                self.client.back_off().await;
            }
        }
        Ok(())
    }
}
