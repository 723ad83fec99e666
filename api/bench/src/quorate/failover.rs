//! `failover`: how long nobody's write is acknowledged when the leader goes, and whether all that was is still there.
//!
//! Sends are due at a constant rate, to each node in turn, and nobody waits for anybody: the gap is between two
//! acknowledgements that follow each other, whoever was given them, and a request that hangs at a dead
//! node does not widen it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use quorate_client::{Level, PageFrom};
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::http::Http;
use super::sends::{Door, Placed, Senders};
use super::stage::Stage;
use crate::live::Live;
use crate::plan::RATE_MAX;
use crate::target::{Call, Fault};

/// Rounds of one run: each takes seconds, and what is acknowledged is kept until the end.
pub const ROUNDS_MAX: usize = 1000;
/// Acknowledgements that are kept: 24 bytes each. A run whose rate and time could come to more ends early and says so.
const ACKNOWLEDGED_MAX: usize = 50_000_000;
/// Requests under way. What is due beyond that is not sent, and counted: the nodes do not answer then, and
/// more would only be more that hangs.
const IN_FLIGHT_MAX: usize = 4096;
/// How often the cluster is asked who leads, while that is waited for.
const ASK_PAUSE: Duration = Duration::from_millis(50);
/// A node that is paused takes the question and does not answer: then another is asked.
const ASK_WITHIN: Duration = Duration::from_secs(1);
/// Of a page when everything is read back, the contract's largest.
const PAGE: u32 = 500;
const TOLD_MAX: usize = 10;

/// What makes the leader go, and come back.
pub trait Disturber: Send + Sync {
    /// Has the leader go. Returns when that is under way; the gap is found by itself.
    fn disturb(&self, leader: u64) -> impl Future<Output = Result<()>> + Send;

    /// Brings back what went.
    fn mend(&self, leader: u64) -> impl Future<Output = Result<()>> + Send;
}

/// The run, and its bounds.
#[derive(Debug)]
pub struct Failover {
    pub http: Arc<Http>,
    pub stage: Arc<Stage>,
    pub rounds: usize,
    /// Sends a second; also the resolution of the gaps.
    pub per_second: f64,
    /// Before each disturbance, all being well, and after the cluster is whole again.
    pub calm: Duration,
    /// Until writes are acknowledged again, and until all nodes are ready again.
    pub recover_within: Duration,
    /// Of one request.
    pub answer_within: Duration,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Round {
    pub leader_before: u64,
    pub leader_after: u64,
    /// The longest time without an acknowledged write, from the disturbance until the calm after it.
    pub gap_ms: f64,
    /// The same while what went came back.
    pub mend_gap_ms: f64,
    /// Terms that began in this round: 1 is one election.
    pub terms: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FailoverReport {
    pub rounds: Vec<Round>,
    pub median_gap_ms: f64,
    pub max_gap_ms: f64,
    /// The longest gap while nothing was disturbed: what the others are to be compared with.
    pub calm_gap_ms: f64,
    pub acknowledged: u64,
    pub errors: BTreeMap<String, u64>,
    /// Were due while too many were under way.
    pub not_started: u64,
    /// Acknowledged, and not there at the end.
    pub lost: u64,
    /// There, though never acknowledged: their outcome was unknown.
    pub unacknowledged: u64,
    pub told: Vec<String>,
}

/// What the senders have seen.
#[derive(Debug)]
struct Board {
    senders: Senders,
    answer_within: Duration,
    live: Arc<Live>,
    /// Held for one record, never across an await.
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    acknowledged: Vec<Placed>,
    last: Instant,
    /// Since it was last taken.
    gap: Duration,
    errors: BTreeMap<String, u64>,
    not_started: u64,
}

impl Board {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no holder of this lock panics")
    }

    async fn send(&self, call: Call) {
        let sent = self.senders.send_as(call, call.number);
        let answer = timeout(self.answer_within, sent).await;
        let mut seen = self.seen();
        match answer.unwrap_or_else(|_| Err(Fault::code("no_answer"))) {
            Ok(placed) => {
                seen.acknowledged(Instant::now());
                seen.acknowledged.push(placed);
                self.live.done(1);
            }
            Err(fault) => {
                let code = match fault {
                    Fault::Code(code) => code.into_owned(),
                    Fault::Wrong(_) => "wrong_answer".to_owned(),
                };
                *seen.errors.entry(code).or_default() += 1;
                self.live.failed();
            }
        }
    }

    /// The longest gap since this was last asked, up to now.
    fn take_gap(&self) -> Duration {
        let mut seen = self.seen();
        // One that has not ended yet is as long as it is by now.
        let open = Instant::now() - seen.last;
        std::mem::take(&mut seen.gap).max(open)
    }

    /// Waits for an acknowledgement that comes after this moment.
    async fn acknowledged_after(&self, moment: Instant) {
        while self.seen().last <= moment {
            sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Seen {
    fn acknowledged(&mut self, now: Instant) {
        self.gap = self.gap.max(now - self.last);
        self.last = now;
    }
}

impl Failover {
    /// # Errors
    /// If a round does not end as it must: the disturber fails, nobody leads or is ready again in time.
    pub async fn run<D: Disturber>(
        self,
        disturber: &D,
        live: Arc<Live>,
        mut say: impl FnMut(&Round, usize),
    ) -> Result<FailoverReport> {
        ensure!(
            (1..=ROUNDS_MAX).contains(&self.rounds),
            "rounds: from 1 to {ROUNDS_MAX}"
        );
        ensure!(
            self.per_second >= 10.0 && self.per_second <= RATE_MAX,
            "the rate: from 10 to {RATE_MAX} a second"
        );
        let board = Arc::new(Board {
            // With keys nothing would be gained: nothing is repeated.
            senders: Senders::new(Door::Http(self.http.clone()), self.stage.clone(), false, false),
            answer_within: self.answer_within,
            live,
            seen: Mutex::new(Seen {
                acknowledged: Vec::new(),
                last: Instant::now(),
                gap: Duration::ZERO,
                errors: BTreeMap::new(),
                not_started: 0,
            }),
        });
        let (stop, stopped) = watch::channel(false);
        let sending = tokio::spawn(send_all(board.clone(), self.per_second, stopped));
        let rounds = self.all_rounds(&board, disturber, &mut say).await;
        stop.send_replace(true);
        sending.await.context("the senders ended early")?;
        let (rounds, calm_gap) = rounds?;
        self.report(&board, rounds, calm_gap).await
    }

    async fn all_rounds<D: Disturber>(
        &self,
        board: &Board,
        disturber: &D,
        say: &mut impl FnMut(&Round, usize),
    ) -> Result<(Vec<Round>, Duration)> {
        let (mut rounds, mut calm_gap) = (Vec::new(), Duration::ZERO);
        timeout(self.recover_within, board.acknowledged_after(Instant::now()))
            .await
            .context("no send was acknowledged at all")?;
        // Connections are opened now.
        sleep(self.calm).await;
        board.take_gap();
        for _ in 0..self.rounds {
            sleep(self.calm).await;
            calm_gap = calm_gap.max(board.take_gap());
            let round = self.round(board, disturber).await?;
            say(&round, rounds.len() + 1);
            rounds.push(round);
            ensure!(
                board.seen().acknowledged.len() < ACKNOWLEDGED_MAX,
                "more than {ACKNOWLEDGED_MAX} messages were acknowledged: fewer rounds, or a lower rate"
            );
        }
        Ok((rounds, calm_gap))
    }

    async fn round<D: Disturber>(&self, board: &Board, disturber: &D) -> Result<Round> {
        let until = Instant::now() + self.recover_within;
        let (leader_before, term_before) = self.leader(until, None).await?;
        board.take_gap();
        let began = Instant::now();
        disturber.disturb(leader_before).await?;
        let (leader_after, _) = self.leader(began + self.recover_within, Some(leader_before)).await?;
        let again = timeout_at(began + self.recover_within, board.acknowledged_after(Instant::now()));
        again.await.context("no write was acknowledged after the disturbance")?;
        sleep(self.calm).await;
        let gap = board.take_gap();
        disturber.mend(leader_before).await?;
        self.all_ready().await?;
        sleep(self.calm).await;
        let mend_gap = board.take_gap();
        let (_, term_after) = self.leader(Instant::now() + self.recover_within, None).await?;
        Ok(Round {
            leader_before,
            leader_after,
            gap_ms: gap.as_secs_f64() * 1e3,
            mend_gap_ms: mend_gap.as_secs_f64() * 1e3,
            terms: term_after.saturating_sub(term_before),
        })
    }

    /// Who leads in which term, once somebody other than `not` does.
    async fn leader(&self, until: Instant, not: Option<u64>) -> Result<(u64, u64)> {
        let client = self.stage.client().with_times(ASK_WITHIN, ASK_WITHIN / 2);
        loop {
            if let Ok(Ok(cluster)) = timeout_at(until, client.cluster()).await
                && let Some(leader) = cluster.leader
                && Some(leader) != not
            {
                return Ok((leader, cluster.term));
            }
            if Instant::now() >= until {
                match not {
                    Some(old) => bail!("nobody but node {old} leads within {:?}", self.recover_within),
                    None => bail!("nobody leads within {:?}", self.recover_within),
                }
            }
            sleep(ASK_PAUSE).await;
        }
    }

    async fn all_ready(&self) -> Result<()> {
        let until = Instant::now() + self.recover_within;
        loop {
            let nodes = self.stage.client().readyz().await;
            let Some(unready) = nodes.into_iter().find(|node| node.ready.is_err()) else {
                return Ok(());
            };
            if Instant::now() >= until {
                let why = unready.ready.err().unwrap_or_default();
                bail!(
                    "{} is not ready within {:?}: {why}",
                    unready.endpoint,
                    self.recover_within
                );
            }
            sleep(ASK_PAUSE).await;
        }
    }

    async fn report(&self, board: &Board, rounds: Vec<Round>, calm_gap: Duration) -> Result<FailoverReport> {
        let mut gaps: Vec<f64> = rounds.iter().map(|round| round.gap_ms).collect();
        gaps.sort_by(f64::total_cmp);
        let found = self.compare(board).await?;
        let seen = board.seen();
        Ok(FailoverReport {
            median_gap_ms: median(&gaps),
            max_gap_ms: gaps.last().copied().unwrap_or_default(),
            calm_gap_ms: calm_gap.as_secs_f64() * 1e3,
            rounds,
            acknowledged: seen.acknowledged.len() as u64,
            errors: seen.errors.clone(),
            not_started: seen.not_started,
            lost: found.lost,
            unacknowledged: found.unacknowledged,
            told: found.told,
        })
    }

    /// Reads all rooms to their ends, and compares them with all that was acknowledged.
    async fn compare(&self, board: &Board) -> Result<Found> {
        let mut by_room: BTreeMap<usize, BTreeMap<u64, u64>> = BTreeMap::new();
        let mut found = Found::default();
        for placed in &board.seen().acknowledged {
            let room = by_room.entry(placed.room()).or_default();
            if room.insert(placed.seq(), placed.number()).is_some() {
                found.lost(format!("seq {} was acknowledged twice", placed.seq()));
            }
        }
        for room in 0..self.stage.rooms() {
            let mut expected = by_room.remove(&room).unwrap_or_default();
            let name = self.stage.room(room);
            let mut after = 0;
            loop {
                let (client, from) = (self.stage.client(), PageFrom::After(after));
                let page = client.history(&name, &from, PAGE, Level::Linearizable).await;
                let page = page.with_context(|| format!("failed to read {name} back"))?;
                for message in &page.messages {
                    let text = message.text.as_deref().unwrap_or_default();
                    match expected.remove(&message.seq) {
                        Some(number) if board.senders.texts.is(text, number) => {}
                        Some(_) => found.lost(format!("message {} of {name} is another", message.seq)),
                        None => found.unacknowledged += 1,
                    }
                    after = message.seq;
                }
                if page.messages.is_empty() || !page.more_after {
                    break;
                }
            }
            for seq in expected.keys() {
                found.lost(format!("message {seq} of {name} was acknowledged and is not there"));
            }
        }
        Ok(found)
    }
}

#[derive(Debug, Default)]
struct Found {
    lost: u64,
    unacknowledged: u64,
    told: Vec<String>,
}

impl Found {
    fn lost(&mut self, what: String) {
        self.lost += 1;
        if self.told.len() < TOLD_MAX {
            self.told.push(what);
        }
    }
}

/// Sends at the rate until it is stopped, then waits for what is under way.
async fn send_all(board: Arc<Board>, per_second: f64, stopped: watch::Receiver<bool>) {
    let begun = Instant::now();
    let mut under_way = JoinSet::new();
    for number in 0_u64.. {
        sleep_until(begun + Duration::from_secs_f64(number as f64 / per_second)).await;
        if *stopped.borrow() {
            break;
        }
        while under_way.try_join_next().is_some() {}
        if under_way.len() >= IN_FLIGHT_MAX {
            board.seen().not_started += 1;
            continue;
        }
        let board = board.clone();
        let client = number as usize;
        under_way.spawn(async move { board.send(Call { client, number }).await });
    }
    under_way.join_all().await;
}

/// Of sorted numbers: the middle one, or what lies between the two in the middle.
fn median(sorted: &[f64]) -> f64 {
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_lies_in_the_middle() {
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[3.0]), 3.0);
        assert_eq!(median(&[1.0, 2.0, 30.0]), 2.0);
        assert_eq!(median(&[1.0, 2.0, 4.0, 50.0]), 3.0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_gap_is_between_acknowledgements_that_follow_each_other() {
        let mut seen = Seen {
            acknowledged: Vec::new(),
            last: Instant::now(),
            gap: Duration::ZERO,
            errors: BTreeMap::new(),
            not_started: 0,
        };
        for ms in [10, 250, 20] {
            sleep(Duration::from_millis(ms)).await;
            seen.acknowledged(Instant::now());
        }
        assert_eq!(seen.gap, Duration::from_millis(250));
    }
}
