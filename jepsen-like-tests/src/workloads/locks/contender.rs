//! Who wants a lock, and who only looks.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rand::RngExt;
use serde_json::{Value, json};

use super::fence::Fence;
use super::holder::Hold;
use super::{Manners, lock, lock_path};
use crate::checker::locks::{ACQUIRE, Acquire, Granted, Holder, LOOK, Seen};
use crate::history::{Entry, Kind};
use crate::http::Call;
use crate::workloads::asking::{ATTEMPT, Client, Reply};

/// Between two attempts of one contender, and between two looks.
const THINK: Duration = Duration::from_millis(60);
/// How often an attempt that would wait is cancelled, and after how long at most.
const CANCELLED: f64 = 0.15;
const CANCEL_AFTER: Duration = Duration::from_millis(600);

pub(super) struct Contender {
    pub(super) client: Client,
    pub(super) manners: Manners,
    pub(super) fence: Arc<Fence>,
}

impl Contender {
    pub(super) async fn work(mut self) -> Result<()> {
        while !self.client.is_stopping() {
            let number = self.client.dice.random_range(0..self.manners.locks);
            let lock = lock(&self.manners, number);
            let asked = Acquire {
                owner: self.client.fresh(),
                ttl_ms: *self.client.pick(self.manners.ttls_ms),
                wait_ms: *self.client.pick(self.manners.waits_ms),
            };
            if let Some(granted) = self.acquire(&lock, &asked).await? {
                let hold = Hold {
                    client: &mut self.client,
                    manners: self.manners,
                    fence: &self.fence,
                    lock: &lock,
                    token: granted.token,
                    ttl: Duration::from_millis(asked.ttl_ms),
                };
                hold.work().await?;
            }
            self.client.pause(THINK).await;
        }
        Ok(())
    }

    async fn acquire(&mut self, lock: &str, asked: &Acquire) -> Result<Option<Granted>> {
        let node = self.client.node();
        let entry = Entry {
            key: Some(lock.to_owned()),
            node: Some(node),
            ..Entry::default()
        };
        let value = Some(json!(asked));
        self.client.record(
            Kind::Invoke,
            ACQUIRE,
            Entry {
                value: value.clone(),
                ..entry.clone()
            },
        );
        let wait = Duration::from_millis(asked.wait_ms);
        let call = Call::put(lock_path(lock), &json!(asked));
        let reply = if asked.wait_ms > 0 && self.client.dice.random_bool(CANCELLED) {
            let cancel = CANCEL_AFTER.mul_f64(self.client.dice.random_range(0.0..1.0));
            // Dropping the request closes its connection.
            match tokio::time::timeout(cancel, self.client.ask_for(node, call, wait)).await {
                Ok(reply) => reply?,
                Err(_) => Reply::Unknown("cancelled".to_owned()),
            }
        } else {
            self.client.settle(node, call, wait, ATTEMPT).await?
        };
        match reply {
            Reply::Decided(answer) if answer.status == 200 => {
                let json = answer.json()?;
                let number = |field: &str| json.get(field).and_then(Value::as_u64);
                let token = number("token").with_context(|| format!("a grant without a token: {answer}"))?;
                let expires_in_ms = number("expires_in_ms").with_context(|| format!("no expires_in_ms: {answer}"))?;
                let granted = Granted { token, expires_in_ms };
                let value = Some(json!(granted));
                self.client.record(Kind::Ok, ACQUIRE, Entry { value, ..entry });
                Ok(Some(granted))
            }
            Reply::Decided(answer) if answer.status == 409 => {
                self.client.record_failure(ACQUIRE, lock, Reply::Decided(answer));
                Ok(None)
            }
            Reply::Decided(answer) => bail!("{ACQUIRE}: {answer}"),
            reply => {
                self.client.record_failure(ACQUIRE, lock, reply);
                self.client.back_off().await;
                Ok(None)
            }
        }
    }
}

/// Looks at the locks again and again.
pub(super) async fn look_on(mut client: Client, manners: Manners) -> Result<()> {
    while !client.is_stopping() {
        let number = client.dice.random_range(0..manners.locks);
        let (lock, node) = (lock(&manners, number), client.node());
        let entry = Entry {
            key: Some(lock.clone()),
            node: Some(node),
            ..Entry::default()
        };
        client.record(Kind::Invoke, LOOK, entry.clone());
        match client.ask(node, Call::get(lock_path(&lock))).await? {
            Reply::Decided(answer) if answer.status == 200 => {
                let value = Some(json!(seen(&answer.json()?)?));
                client.record(Kind::Ok, LOOK, Entry { value, ..entry });
            }
            // Nobody has asked for it yet.
            Reply::Decided(answer) if answer.status == 404 => {
                client.record_failure(LOOK, &lock, Reply::Decided(answer));
            }
            Reply::Decided(answer) => bail!("{LOOK}: {answer}"),
            Reply::NotApplied(error) | Reply::Unknown(error) => {
                client.record_failure(LOOK, &lock, Reply::NotApplied(error));
                client.back_off().await;
            }
        }
        client.pause(THINK).await;
    }
    Ok(())
}

fn seen(shown: &Value) -> Result<Seen> {
    let owner = |of: &Value| of.get("owner").and_then(Value::as_str).map(str::to_owned);
    let list = |field: &str| {
        shown
            .get(field)
            .and_then(Value::as_array)
            .with_context(|| format!("no {field}: {shown}"))
    };
    let holders = list("holders")?;
    if holders.len() > 1 {
        bail!("two hold an exclusive lock: {shown}");
    }
    let holder = holders.first().map(|holder| {
        let token = holder.get("token").and_then(Value::as_u64);
        let (owner, token) = owner(holder)
            .zip(token)
            .with_context(|| format!("a holder without a token: {shown}"))?;
        anyhow::Ok(Holder { owner, token })
    });
    let queue = list("queue")?
        .iter()
        .map(|waiter| owner(waiter).context("a waiter without an owner"));
    let last_token = shown.get("last_token").and_then(Value::as_u64);
    Ok(Seen {
        holder: holder.transpose()?,
        queue: queue.collect::<Result<_>>()?,
        last_token: last_token.with_context(|| format!("no last_token: {shown}"))?,
    })
}
