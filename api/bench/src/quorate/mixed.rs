//! `mixed`: what a busy chat is asked, in the proportions that Zulip has published of its servers
//! (<https://zulip.readthedocs.io/en/stable/subsystems/performance.html>, "Major Zulip endpoints").
//!
//! Of its requests 44 % ask for events, 36 % tell and ask who is present, 5 % fetch uploads, 3 % fetch
//! history, 1.5 % mark messages, 0.5 % send one, 0.3 % open the application. What is not built here is stood for by
//! what is nearest in cost to the store, or left out; `WEIGHTS` says which.

use std::sync::Arc;

use anyhow::Result;
use quorate_client::Level;

use super::http::{Http, encode};
use super::reads::{PagePlace, Readers};
use super::scatter;
use super::sends::Placed;
use super::stage::Stage;
use super::streams::{StreamReport, TimedSends, missing};
use super::subscriber::{Clock, Subscribers};
use crate::live::Live;
use crate::plan::Plan;
use crate::run::run;
use crate::target::{Call, Done, Fault, Target, Unheld};

const KINDS: [&str; 4] = ["poll", "look", "page", "send"];
/// Of 888, by kind: 44.0 % polls (events); 41.3 % looks at a room (presence, uploads, opening); 3.0 % pages
/// (history); 0.5 % sends. Marking messages has nothing here that it could be measured by.
const WEIGHTS: [u64; 4] = [440, 413, 30, 5];
const PAGE: u32 = 50;

/// The workload, with streams open beside the requests.
#[derive(Debug)]
pub struct Mixed {
    pub http: Arc<Http>,
    pub stage: Arc<Stage>,
    pub subscribers: usize,
    pub level: Level,
}

#[derive(Debug)]
struct Requests {
    readers: Readers,
    sends: TimedSends,
    /// By room.
    rooms: Vec<String>,
}

impl Mixed {
    /// # Errors
    /// If the streams cannot all be opened.
    pub async fn run(self, plan: Plan, live: Arc<Live>) -> Result<StreamReport> {
        let clock = Clock::new();
        let subscribers = Subscribers::open(self.http.clone(), &self.stage, self.subscribers, clock).await?;
        let rooms = (0..self.stage.rooms()).map(|room| format!("/v1/rooms/{}", encode(&self.stage.room(room))));
        let requests = Arc::new(Requests {
            rooms: rooms.collect(),
            sends: TimedSends::new(self.http.clone(), self.stage.clone(), clock),
            readers: Readers::new(self.http, self.stage, self.level),
        });
        subscribers.measure(plan.warm_up, plan.duration);
        let mut report = run(requests.clone(), plan, live).await;
        let deliveries = subscribers.finish(requests.sends.acknowledged()).await;
        missing(&mut report, &deliveries);
        Ok(StreamReport {
            sends: report,
            deliveries,
        })
    }
}

/// Which kind this operation is.
fn kind_of(number: u64) -> usize {
    // Another choice than that of the room, which is by `scatter(number)`.
    let mut chance = scatter(!number) % WEIGHTS.iter().sum::<u64>();
    for (kind, weight) in WEIGHTS.into_iter().enumerate() {
        if chance < weight {
            return kind;
        }
        chance -= weight;
    }
    unreachable!("the chance is below the sum of the weights")
}

impl Target for Requests {
    type Receipt = Placed;

    fn kinds(&self) -> &'static [&'static str] {
        &KINDS
    }

    async fn perform(&self, call: Call) -> Result<Done<Placed>, Fault> {
        let kind = kind_of(call.number);
        let mut receipt = None;
        match KINDS[kind] {
            "poll" => self.readers.poll(call).await?,
            "look" => {
                let (room, _) = self.readers.place(call.number);
                self.readers.get_path(call, &self.rooms[room]).await?;
            }
            "page" => self.readers.page(call, PagePlace::Newest, PAGE).await?,
            _ => receipt = Some(self.sends.send(call).await?),
        }
        Ok(Done {
            kind,
            ..Done::one(receipt)
        })
    }

    async fn read_back(&self, placed: &Placed) -> Result<(), Unheld> {
        self.sends.read_back(placed).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mix_is_the_published_one() {
        let mut counts = [0_u64; KINDS.len()];
        let total = 888_000;
        (0..total).for_each(|number| counts[kind_of(number)] += 1);
        for (count, weight) in counts.into_iter().zip(WEIGHTS) {
            let expected = weight * 1000;
            assert!(count.abs_diff(expected) < expected / 10, "{counts:?}");
        }
    }
}
