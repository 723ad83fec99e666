//! Which node is asked next. Plain functions over what earlier answers taught: no IO, and time
//! comes in as an argument.

use std::time::{Duration, Instant};

use crate::wire::Cluster;

/// Nodes that a client keeps in mind, configured and learnt: more than a cluster has. What comes
/// beyond is not learnt.
const NODES_MAX: usize = 32;
/// A node that failed is left alone for about 10 ms at first, and each time for half as long again, so that nobody
/// waits for much more than the time that the cluster itself takes to replace a leader, …
const BACKOFF_MIN: Duration = Duration::from_millis(10);
const BACKOFF_GROWTH: f64 = 1.5;
/// … and for about a second at most, so that a node that came back is soon found again.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Route {
    /// The configured ones first, then the learnt ones; only ever appended to, so an index stays.
    nodes: Vec<Node>,
    /// Where reads go.
    preferred: usize,
    /// Where writes go, when it is known.
    leader: Option<usize>,
}

#[derive(Debug)]
struct Node {
    url: String,
    id: Option<u64>,
    /// Failures since the last answer.
    failures: u32,
    /// Left alone until then.
    not_before: Option<Instant>,
}

/// The node to ask, after waiting so long.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) index: usize,
    pub(crate) url: String,
    pub(crate) wait: Duration,
}

/// What an answer's headers say about the cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Hints {
    /// `X-Quorate-Node`.
    pub(crate) node: Option<u64>,
    /// `X-Quorate-Leader`; the inner one is none where the node knows of no leader.
    pub(crate) leader: Option<Option<u64>>,
}

impl Route {
    /// `urls` has at least one.
    pub(crate) fn new(urls: Vec<String>) -> Self {
        assert!(!urls.is_empty(), "a client has at least one endpoint");
        let nodes = urls.into_iter().map(Node::new).collect();
        Self {
            nodes,
            preferred: 0,
            leader: None,
        }
    }

    /// The leader for a write, else the preferred node, else the others in turn; those that are
    /// left alone are passed over, and when all are, the one that is free first is waited for.
    pub(crate) fn choose(&self, write: bool, now: Instant) -> Choice {
        let count = self.nodes.len();
        let leader = if write { self.leader } else { None };
        let order = leader
            .into_iter()
            .chain((0..count).map(|step| (self.preferred + step) % count));
        let (index, wait) = order
            .map(|index| (index, self.nodes[index].wait(now)))
            .min_by_key(|(_, wait)| *wait)
            .expect("there is at least one node");
        Choice {
            index,
            url: self.nodes[index].url.clone(),
            wait,
        }
    }

    /// What the headers of any answer say. Returns whether they name a leader whose URL is not
    /// known yet.
    pub(crate) fn hear(&mut self, index: usize, hints: Hints) -> bool {
        if hints.node.is_some() {
            self.nodes[index].id = hints.node;
        }
        if let Some(leader) = hints.leader {
            self.leader = leader.and_then(|id| self.nodes.iter().position(|node| node.id == Some(id)));
            return leader.is_some() && self.leader.is_none();
        }
        false
    }

    /// The node served a request, or refused it for good.
    pub(crate) fn served(&mut self, index: usize, write: bool) {
        let node = &mut self.nodes[index];
        node.failures = 0;
        node.not_before = None;
        if !write {
            self.preferred = index;
        }
    }

    /// The node could not serve a request. It is left alone for `retry_after` where it said so,
    /// and for a while that grows with each failure; `jitter` in 0..=1 spreads clients out.
    pub(crate) fn failed(&mut self, index: usize, now: Instant, retry_after: Option<Duration>, jitter: f64) {
        if self.leader == Some(index) {
            self.leader = None;
        }
        let node = &mut self.nodes[index];
        let pause = retry_after.unwrap_or_default().max(backoff(node.failures, jitter));
        node.failures = node.failures.saturating_add(1);
        // Attempts that ran side by side fail side by side: the longest pause holds.
        node.not_before = node.not_before.max(Some(now + pause));
    }

    /// Takes the nodes' URLs from an answer of `/v1/cluster`.
    pub(crate) fn learn(&mut self, cluster: &Cluster) {
        for member in &cluster.nodes {
            let url = member.client_url.trim_end_matches('/');
            if !url.starts_with("http://") {
                continue;
            }
            // A node that answered has told its id under the URL that reached it, which may not
            // be the one that it advertises.
            let known = self
                .nodes
                .iter()
                .position(|node| node.id == Some(member.id) || node.url == url);
            match known {
                Some(index) => self.nodes[index].id = Some(member.id),
                None if self.nodes.len() < NODES_MAX => {
                    self.nodes.push(Node {
                        id: Some(member.id),
                        ..Node::new(url.to_owned())
                    });
                }
                None => {}
            }
        }
        if let Some(leader) = cluster.leader {
            self.leader = self.nodes.iter().position(|node| node.id == Some(leader));
        }
    }

    /// Where the node was reached, or else what it says of itself.
    pub(crate) fn url_of(&self, id: u64) -> Option<String> {
        let node = self.nodes.iter().find(|node| node.id == Some(id))?;
        Some(node.url.clone())
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.url.clone()).collect()
    }
}

impl Node {
    fn new(url: String) -> Self {
        Self {
            url,
            id: None,
            failures: 0,
            not_before: None,
        }
    }

    fn wait(&self, now: Instant) -> Duration {
        self.not_before
            .map_or(Duration::ZERO, |at| at.saturating_duration_since(now))
    }
}

/// Grows with each failure; the jitter takes away up to half.
pub(crate) fn backoff(failures: u32, jitter: f64) -> Duration {
    // Twenty failures are well beyond the longest pause.
    let growth = BACKOFF_GROWTH.powi(failures.min(20).cast_signed());
    let full = BACKOFF_MIN.mul_f64(growth).min(BACKOFF_MAX);
    full.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ClusterNode;

    fn route(count: usize) -> Route {
        Route::new((1..=count).map(|n| format!("http://n{n}")).collect())
    }

    fn hints(node: u64, leader: u64) -> Hints {
        Hints {
            node: Some(node),
            leader: Some(Some(leader)),
        }
    }

    fn cluster(leader: Option<u64>, nodes: &[(u64, &str)]) -> Cluster {
        let nodes = nodes
            .iter()
            .map(|(id, url)| ClusterNode {
                id: *id,
                client_url: (*url).to_owned(),
                peer_addr: String::new(),
                role: "voter".into(),
                state: "follower".into(),
                last_log: 0,
                applied: 0,
                lag: 0,
            })
            .collect();
        Cluster {
            cluster_id: "c".into(),
            version: 1,
            nodes,
            leader,
            term: 1,
            failures_tolerated: 1,
            changes: Vec::new(),
        }
    }

    #[test]
    fn a_node_that_failed_is_passed_over_until_its_pause_ends() {
        let (mut route, now) = (route(3), Instant::now());
        assert_eq!(route.choose(false, now).index, 0);
        route.failed(0, now, None, 1.0);
        assert_eq!(route.choose(false, now).index, 1);
        route.failed(1, now, None, 1.0);
        assert_eq!(route.choose(false, now).index, 2);
        route.failed(2, now, Some(Duration::from_secs(2)), 1.0);
        let choice = route.choose(false, now);
        assert_eq!((choice.index, choice.wait), (0, BACKOFF_MIN));
        assert_eq!(route.choose(false, now + BACKOFF_MIN).wait, Duration::ZERO);
    }

    #[test]
    fn retry_after_is_honoured_even_when_longer_than_the_backoff() {
        let (mut route, now) = (route(1), Instant::now());
        route.failed(0, now, Some(Duration::from_secs(7)), 0.0);
        assert_eq!(route.choose(true, now).wait, Duration::from_secs(7));
    }

    #[test]
    fn reads_stay_where_they_were_answered_and_writes_go_to_the_leader() {
        let (mut route, now) = (route(3), Instant::now());
        route.served(2, false);
        assert!(route.hear(2, hints(3, 9)), "node 9 is not known");
        assert_eq!(route.choose(false, now).index, 2);
        route.served(1, true);
        assert!(!route.hear(1, hints(2, 2)));
        assert_eq!(route.choose(false, now).index, 2, "a write moves no reads");
        assert_eq!(route.choose(true, now).index, 1);
        route.failed(1, now, None, 0.0);
        assert_eq!(
            route.choose(true, now).index,
            2,
            "a failed leader is the leader no more"
        );
    }

    #[test]
    fn a_leader_with_an_unknown_url_is_learnt_from_the_cluster() {
        let (mut route, now) = (route(1), Instant::now());
        assert!(route.hear(0, hints(1, 3)), "asks to learn");
        route.learn(&cluster(
            Some(3),
            &[(1, "http://inside1/"), (3, "http://n3/"), (4, "ftp://n4")],
        ));
        assert_eq!(
            route.urls(),
            ["http://n1", "http://n3"],
            "node 1 keeps the URL that reached it"
        );
        assert_eq!(route.choose(true, now).url, "http://n3");
        assert_eq!(
            [1, 3, 4].map(|id| route.url_of(id)),
            [Some("http://n1".to_owned()), Some("http://n3".to_owned()), None]
        );
        assert!(!route.hear(0, hints(1, 3)));
        assert!(!route.hear(
            0,
            Hints {
                node: Some(1),
                leader: Some(None)
            }
        ));
        assert_eq!(route.choose(true, now).index, 0, "the leader is not known any more");
    }

    #[test]
    fn backoff_grows_is_bounded_and_jitters_by_half() {
        assert_eq!(backoff(0, 1.0), BACKOFF_MIN);
        assert_eq!(backoff(1, 1.0), BACKOFF_MIN * 3 / 2);
        // A leader is replaced within some 150 ms; of them all, the last pause is a third.
        let pauses: Duration = (0..5).map(|failures| backoff(failures, 1.0)).sum();
        assert!(pauses < Duration::from_millis(150) && backoff(5, 1.0) < Duration::from_millis(80));
        assert_eq!(backoff(40, 1.0), BACKOFF_MAX);
        assert_eq!(backoff(40, 0.0), BACKOFF_MAX / 2);
    }
}
