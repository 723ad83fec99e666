//! The task behind a socket: connects, writes what is to be sent, hears the answers, and begins anew at another node
//! when the connection is lost.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::sync::mpsc;

use super::connection::{Connection, Event, NotOpen};
use super::pending::{Order, Pending, Verdict};
use crate::client::Client;
use crate::error::Error;
use crate::wire::Sent;
use crate::wire::socket::SocketProblem;

/// A node gets so much more than the time that it was given, so that its own words about a time-out arrive.
const GRACE: Duration = Duration::from_secs(1);
/// Changes to the node that another names as the leader, in a row: while leadership moves, two may each name the other.
const HOPS_MAX: u32 = 2;
/// How long a goodbye may take.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

pub(super) struct Driver {
    client: Client,
    orders: mpsc::Receiver<Order>,
    /// By id, so in the order in which they were asked for.
    pending: BTreeMap<u64, Pending>,
    /// No further orders will come.
    is_closed: bool,
}

/// A connection, and whose it is in the route.
struct Reached {
    connection: Connection,
    node: usize,
    url: String,
}

/// What is looked at first of any frame.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "type")]
    type_: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Refusal {
    problem: SocketProblem,
}

impl Driver {
    pub(super) fn new(client: Client, orders: mpsc::Receiver<Order>) -> Self {
        Self {
            client,
            orders,
            pending: BTreeMap::new(),
            is_closed: false,
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            if self.pending.is_empty() {
                match self.orders.recv().await {
                    Some(order) => self.take(order),
                    None => return,
                }
            }
            let Some(reached) = self.connect().await else { continue };
            let Reached {
                mut connection,
                node,
                url,
            } = reached;
            match self.converse(&mut connection, node).await {
                Some(why) => {
                    tracing::debug!(url, why, pending = self.pending.len(), "a socket's connection is lost");
                    let words = format!("{url}: {why}");
                    self.pending.values_mut().for_each(|pending| pending.lost(&words));
                    let mut route = self.client.shared.route();
                    route.failed(node, Instant::now(), None, rand::random_range(0.0..=1.0));
                }
                None => return connection.close(CLOSE_WITHIN).await,
            }
        }
    }

    fn take(&mut self, order: Order) {
        self.pending.insert(order.id, Pending::new(order));
    }

    /// Until some node is reached; none when nothing is left to be sent.
    async fn connect(&mut self) -> Option<Reached> {
        let mut hops = 0;
        loop {
            while let Ok(order) = self.orders.try_recv() {
                self.take(order);
            }
            self.expire(Instant::now());
            let earliest = self.pending.values().map(|pending| pending.due(Duration::MAX)).min()?;
            let choice = self.client.shared.route().choose(true, Instant::now());
            if !choice.wait.is_zero() {
                let until = earliest.min(Instant::now() + choice.wait);
                tokio::time::sleep_until(until.into()).await;
                continue;
            }
            let options = &self.client.options;
            let opened = Connection::open(&choice.url, &self.client.identity, options.connect, options.attempt).await;
            match opened {
                Ok((connection, hints)) => {
                    let (unknown, better) = {
                        let mut route = self.client.shared.route();
                        (route.hear(choice.index, hints), route.choose(true, Instant::now()))
                    };
                    if unknown {
                        self.client.learn_later(&choice.url);
                    }
                    // A follower forwards, which costs both nodes something for every message.
                    if better.index != choice.index && better.wait.is_zero() && hops < HOPS_MAX {
                        hops += 1;
                        connection.close(CLOSE_WITHIN).await;
                        continue;
                    }
                    self.client.shared.route().served(choice.index, true);
                    return Some(Reached {
                        connection,
                        node: choice.index,
                        url: choice.url,
                    });
                }
                Err(NotOpen::Refused(problem)) => {
                    for (_, pending) in std::mem::take(&mut self.pending) {
                        pending.refuse((*problem).clone());
                    }
                }
                Err(NotOpen::Failed(why)) => {
                    let words = format!("{}: {why}", choice.url);
                    self.pending.values_mut().for_each(|pending| pending.lost(&words));
                    let jitter = rand::random_range(0.0..=1.0);
                    self.client
                        .shared
                        .route()
                        .failed(choice.index, Instant::now(), None, jitter);
                }
            }
        }
    }

    /// Those whose time is up have their answer.
    fn expire(&mut self, now: Instant) {
        for (_, pending) in self.pending.extract_if(.., |_, pending| pending.has_expired(now)) {
            pending.give_up();
        }
    }

    /// Until the connection is lost, and why; none when nobody has anything more to send.
    async fn converse(&mut self, connection: &mut Connection, node: usize) -> Option<String> {
        let patience = self.client.options.attempt + GRACE;
        let idle = self.client.options.stream_idle;
        let mut heard = Instant::now();
        self.write_due(connection, heard);
        loop {
            if self.pending.is_empty() && self.is_closed {
                return None;
            }
            // Every answer that is there is heard before anything is written again, so that what is written goes out
            // in one piece.
            let due = self.pending.values().map(|pending| pending.due(patience));
            let due = due.chain([heard + idle]).min().expect("there is at least one time");
            tokio::select! {
                biased;
                event = connection.event() => match event {
                    Event::Text(text) => {
                        heard = Instant::now();
                        if let Some(why) = self.hear(&text, heard) {
                            return Some(why);
                        }
                    }
                    Event::Life => heard = Instant::now(),
                    Event::Lost(why) => return Some(why),
                },
                order = self.orders.recv(), if !self.is_closed => match order {
                    Some(order) => {
                        self.take(order);
                        while let Ok(order) = self.orders.try_recv() {
                            self.take(order);
                        }
                        self.write_due(connection, Instant::now());
                    }
                    None => self.is_closed = true,
                },
                () = tokio::time::sleep_until(due.into()) => {
                    let now = Instant::now();
                    self.expire(now);
                    if self.pending.values().any(|pending| pending.is_overdue(now, patience)) {
                        return Some("a send was not answered in time".to_owned());
                    }
                    if now >= heard + idle {
                        return Some("nothing was heard for too long".to_owned());
                    }
                    self.write_due(connection, now);
                    self.client.shared.route().served(node, true);
                }
            }
        }
    }

    fn write_due(&mut self, connection: &mut Connection, now: Instant) {
        for pending in self.pending.values_mut() {
            if let Some(frame) = pending.frame_due(now) {
                connection.put(frame);
            }
        }
    }

    /// An answer. In words why to go to another node, if that is to be done.
    fn hear(&mut self, text: &str, now: Instant) -> Option<String> {
        let Ok(Head { id: Some(id), type_ }) = serde_json::from_str(text) else {
            tracing::debug!("a frame of a node that answers nothing");
            return None;
        };
        let id: u64 = id.parse().ok()?;
        match &*type_ {
            "sent" => {
                // Answered twice: the first one holds.
                let pending = self.pending.remove(&id)?;
                pending.answer(serde_json::from_str::<Sent>(text).map_err(|error| Error::BadResponse {
                    detail: error.to_string(),
                    write: true,
                }));
                None
            }
            "error" => {
                let Refusal { problem } = match serde_json::from_str(text) {
                    Ok(refusal) => refusal,
                    Err(error) => {
                        let detail = error.to_string();
                        let answer = Err(Error::BadResponse { detail, write: true });
                        self.pending.remove(&id)?.answer(answer);
                        return None;
                    }
                };
                let pending = self.pending.get_mut(&id)?;
                match pending.hear(&problem, now, rand::random_range(0.0..=1.0)) {
                    Verdict::Settled => {
                        self.pending.remove(&id)?.refuse(problem.problem);
                        None
                    }
                    Verdict::Again => None,
                    Verdict::Elsewhere => Some(format!("{} ({})", problem.problem.detail, problem.problem.code)),
                }
            }
            _ => None,
        }
    }
}
