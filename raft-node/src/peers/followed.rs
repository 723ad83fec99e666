//! Who has lately followed this node: when what each peer has answered was sent.
//!
//! openraft keeps such times as well, and confirms a read by them. But it takes an answer to entries for an answer to
//! all appends behind them that end at the same entry, at the time of the last: an append that only tells of a commit
//! may have been sent after the answer was given, or wait yet ([`super::append_stream`]). A leader that stood still for so long
//! that another was elected, and then finds the old answer in its socket, could so confirm a read that it must not answer. So a
//! read is not answered before these times confirm it too.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::quorum::each_has_quorum;
use crate::read_index::ROUND_TIMEOUT;

/// When a request was sent that says who leads, and in which term.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sent {
    pub term: u64,
    pub at: Instant,
}

/// One entry for each peer that ever was: they are as few as the changes of the membership.
#[derive(Debug)]
pub struct Followed {
    newest: watch::Sender<BTreeMap<u64, Sent>>,
}

impl Default for Followed {
    fn default() -> Self {
        let (newest, _) = watch::channel(BTreeMap::new());
        Self { newest }
    }
}

impl Followed {
    /// The peer has answered, as a follower, what was sent then.
    pub fn answered(&self, peer: u64, sent: Sent) {
        self.newest.send_if_modified(|newest| {
            let before = newest.get(&peer);
            let is_newer = before.is_none_or(|before| *before < sent);
            if is_newer {
                newest.insert(peer, sent);
            }
            is_newer
        });
    }

    /// Waits until a majority of each set of voters has followed this node in the term since then; false if that takes
    /// longer than a round may. `this` is the node itself.
    pub async fn by_majority(&self, since: Sent, this: u64, configs: impl Fn() -> Vec<BTreeSet<u64>>) -> bool {
        let mut newest = self.newest.subscribe();
        let confirmed = newest.wait_for(|newest| {
            each_has_quorum(&configs(), |voter| {
                let sent = newest.get(&voter);
                voter == this || sent.is_some_and(|sent| sent.term == since.term && sent.at >= since.at)
            })
        });
        matches!(timeout(ROUND_TIMEOUT, confirmed).await, Ok(Ok(_)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    const MOMENT: Duration = Duration::from_millis(1);

    fn sent(term: u64, at: Instant) -> Sent {
        Sent { term, at }
    }

    /// Whether node 1 is confirmed by what has been answered by now.
    async fn is_confirmed(followed: &Followed, since: Sent, configs: &[&[u64]]) -> bool {
        let configs: Vec<BTreeSet<u64>> = configs.iter().map(|voters| voters.iter().copied().collect()).collect();
        followed.by_majority(since, 1, || configs.clone()).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_majority_has_to_follow_since_then_and_in_the_term() {
        let followed = Followed::default();
        let before = Instant::now();
        advance(MOMENT).await;
        let since = sent(3, Instant::now());
        let three: &[&[u64]] = &[&[1, 2, 3]];
        assert!(!is_confirmed(&followed, since, three).await);
        followed.answered(2, sent(3, before));
        assert!(
            !is_confirmed(&followed, since, three).await,
            "what was sent before proves nothing"
        );
        followed.answered(3, sent(2, since.at + MOMENT));
        assert!(!is_confirmed(&followed, since, three).await, "nor does another term");
        followed.answered(2, since);
        assert!(is_confirmed(&followed, since, three).await);
        assert!(!is_confirmed(&followed, since, &[&[1, 2, 3, 4, 5]]).await);
        assert!(
            !is_confirmed(&followed, since, &[&[1, 2, 3], &[1, 4, 5]]).await,
            "each set needs its own"
        );
        followed.answered(5, since);
        assert!(is_confirmed(&followed, since, &[&[1, 2, 3], &[1, 4, 5]]).await);
        assert!(
            is_confirmed(&Followed::default(), since, &[&[1]]).await,
            "it follows itself"
        );
        assert!(!is_confirmed(&followed, since, &[]).await, "nobody is no majority");
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_answer_that_comes_late_takes_nothing_back() {
        let followed = Followed::default();
        let early = sent(3, Instant::now());
        advance(MOMENT).await;
        let since = sent(3, Instant::now());
        followed.answered(2, since);
        followed.answered(2, early);
        assert!(is_confirmed(&followed, since, &[&[1, 2, 3]]).await);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_hears_of_the_answer() {
        let followed = Arc::new(Followed::default());
        let since = sent(1, Instant::now());
        let waiting = tokio::spawn({
            let followed = followed.clone();
            async move { is_confirmed(&followed, since, &[&[1, 2, 3]]).await }
        });
        tokio::task::yield_now().await;
        followed.answered(3, since);
        assert!(waiting.await.unwrap());
        assert_eq!(since.at, Instant::now(), "without waiting for the bound");
    }
}
