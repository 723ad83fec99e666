//! How a node finds out whether its leader's process lives, and how long it waits for the answer.

use std::time::Duration;

use tokio::time::timeout;

use super::Failover;
use crate::peers::pool::{DIAL_TIMEOUT, Pool, Probe};

/// A process that ends closes its sockets one after the other: for a moment its listener may outlive a connection.
const AGAIN_MIN: Duration = Duration::from_millis(2);
/// While nobody listens: a process that is started anew is soon seen, and dialling costs nothing.
const AGAIN_REFUSED: Duration = Duration::from_millis(100);
/// While nothing can be said: a link that is down, or a node that does not take this one for a peer.
const AGAIN_UNCLEAR: Duration = Duration::from_secs(1);

/// How long a probe first waits for a connection. A packet that comes just as a listener closes may be dropped without a
/// word, and TCP sends it again after a second: whoever dials anew hears at once that nobody listens. A leader that is
/// far away or busy is given twice as long each time.
const WITHIN_MIN: Duration = Duration::from_millis(50);

/// Probes of one leader, one after the other.
#[derive(Debug)]
pub(super) struct Prober {
    pause: Duration,
    within: Duration,
}

impl Prober {
    pub(super) fn new() -> Self {
        Self {
            pause: AGAIN_MIN,
            within: WITHIN_MIN,
        }
    }

    pub(super) async fn probe(&mut self, pool: &Pool, leader: u64) -> Probe {
        let probe = pool.probe(leader, self.within).await;
        match probe {
            Probe::Met(_) => *self = Self::new(),
            Probe::Silent => self.within = (self.within * 2).min(DIAL_TIMEOUT),
            // A refusal that took a while takes as long the next time: a patience that is too short for it would take
            // the sign back.
            Probe::Refused | Probe::Unclear => {}
        }
        probe
    }

    /// Until the pause after such a probe is over or somebody asks; the next pause is twice as long.
    pub(super) async fn rest(&mut self, after: &Probe, failover: &Failover) {
        let pause_max = match after {
            Probe::Refused => AGAIN_REFUSED,
            Probe::Met(_) | Probe::Silent | Probe::Unclear => AGAIN_UNCLEAR,
        };
        let _ = timeout(self.pause.min(pause_max), failover.asked.notified()).await;
        self.pause = (self.pause * 2).min(pause_max);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io;
    use std::sync::{Arc, Mutex};

    use futures::future::BoxFuture;
    use prometheus::Registry;
    use tokio::io::duplex;
    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::config::InitialMember;
    use crate::metrics::Metrics;
    use crate::peers::book::PeerBook;
    use crate::peers::handshake::welcome;
    use crate::peers::transport::{BoxLink, Transport};

    const LEADER: u64 = 2;

    fn leader_at(addr: &str) -> InitialMember {
        InitialMember {
            id: LEADER,
            peer_addr: addr.to_owned(),
            client_url: "http://leader".to_owned(),
        }
    }

    fn book(id: u64) -> PeerBook {
        PeerBook::new(id, u128::from(id) * 11, &[leader_at("leader")], Some("c".to_owned()))
    }

    /// What becomes of each dial in turn, and after how many milliseconds.
    #[derive(Debug)]
    struct Dials(Mutex<VecDeque<(u64, Dial)>>);

    #[derive(Debug, Clone, Copy)]
    enum Dial {
        Answered,
        Refused,
        Reset,
        Lost,
    }

    impl Transport for Dials {
        fn connect<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<BoxLink>> {
            let (ms, dial) = self.0.lock().unwrap().pop_front().expect("one dial more than foreseen");
            Box::pin(async move {
                sleep(Duration::from_millis(ms)).await;
                match dial {
                    Dial::Answered => {
                        let (near, far) = duplex(1 << 10);
                        tokio::spawn(async move { welcome(Box::new(far), &book(LEADER), false, 7).await });
                        Ok(Box::new(near) as BoxLink)
                    }
                    Dial::Refused => Err(io::ErrorKind::ConnectionRefused.into()),
                    Dial::Reset => Err(io::ErrorKind::ConnectionReset.into()),
                    Dial::Lost => std::future::pending().await,
                }
            })
        }
    }

    fn pool(dials: &[(u64, Dial)]) -> Arc<Pool> {
        let transport = Arc::new(Dials(Mutex::new(dials.iter().copied().collect())));
        let metrics = Metrics::new(&Registry::new()).expect("the names are valid");
        Pool::new(Arc::new(book(1)), transport, metrics.peers)
    }

    fn name(probe: &Probe) -> &'static str {
        match probe {
            Probe::Met(_) => "met",
            Probe::Refused => "refused",
            Probe::Silent => "silent",
            Probe::Unclear => "unclear",
        }
    }

    /// When each probe begins if one follows the other, what it says, and how long it takes; in milliseconds.
    async fn probes(dials: &[(u64, Dial)]) -> Vec<(u128, &'static str, u128)> {
        let pool = pool(dials);
        let metrics = Metrics::new(&Registry::new()).expect("the names are valid");
        let failover = Failover::new(metrics.elections);
        let mut prober = Prober::new();
        let mut said = Vec::new();
        let start = Instant::now();
        for _ in dials {
            let begun = Instant::now();
            let probe = prober.probe(&pool, LEADER).await;
            said.push((
                begun.duration_since(start).as_millis(),
                name(&probe),
                begun.elapsed().as_millis(),
            ));
            prober.rest(&probe, &failover).await;
        }
        said
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_packet_costs_little() {
        let said = probes(&[(0, Dial::Lost), (0, Dial::Refused)]).await;
        assert_eq!(said, [(0, "silent", 50), (52, "refused", 0)]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_silent_is_given_longer_each_time() {
        let said = probes(&[(0, Dial::Lost); 7]).await;
        let waits: Vec<_> = said.into_iter().map(|(_, _, ms)| ms).collect();
        assert_eq!(waits, [50, 100, 200, 400, 800, 1000, 1000]);
    }

    #[tokio::test(start_paused = true)]
    async fn resets_leave_a_lost_packet_as_cheap_as_it_was() {
        let said = probes(&[(1, Dial::Reset), (1, Dial::Reset), (1, Dial::Reset), (0, Dial::Lost)]).await;
        assert_eq!(
            said,
            [
                (0, "unclear", 1),
                (3, "unclear", 1),
                (8, "unclear", 1),
                (17, "silent", 50)
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_from_far_away_keep_the_patience_that_they_need() {
        let said = probes(&[(80, Dial::Refused); 4]).await;
        assert_eq!(
            said,
            [
                (0, "silent", 50),
                (52, "refused", 80),
                (136, "refused", 80),
                (224, "refused", 80)
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_answers_is_probed_as_at_the_beginning() {
        let lost = (0, Dial::Lost);
        let said = probes(&[lost, lost, (0, Dial::Answered), lost, lost]).await;
        let waits: Vec<_> = said.iter().map(|(_, what, ms)| (*what, *ms)).collect();
        assert_eq!(
            waits,
            [
                ("silent", 50),
                ("silent", 100),
                ("met", 0),
                ("silent", 50),
                ("silent", 100)
            ]
        );
        // 2 and 4 ms of rest before; 2 ms after it was met, and then 4 again.
        let begun: Vec<_> = said.into_iter().map(|(begun, _, _)| begun).collect();
        assert_eq!(begun, [0, 52, 156, 158, 212]);
    }

    /// A leader whose address is about to change may listen at either.
    #[tokio::test(start_paused = true)]
    async fn of_several_addresses_all_must_refuse_and_silence_asks_for_patience() {
        use Dial::{Answered, Lost, Refused, Reset};
        for (first, second, says) in [
            (Refused, Refused, "refused"),
            (Refused, Answered, "met"),
            (Refused, Reset, "unclear"),
            (Reset, Refused, "unclear"),
            (Lost, Refused, "silent"),
            (Refused, Lost, "silent"),
            (Lost, Reset, "silent"),
            (Reset, Lost, "silent"),
        ] {
            let pool = pool(&[(0, first), (0, second)]);
            pool.book.set_candidate(Some(leader_at("another")));
            let probe = pool.probe(LEADER, WITHIN_MIN).await;
            assert_eq!(name(&probe), says, "{first:?}, {second:?}");
        }
    }
}
