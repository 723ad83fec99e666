use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::future::poll_fn;
use prometheus::IntGauge;
use quorate_storage::log::{self, Vote};
use tokio::io::duplex;
use tokio::time::advance;
use tokio_util::codec::Framed;

use super::*;
use crate::peers::framing::Framing;
use crate::peers::transport::BoxLink;
use crate::types::{Entry, EntryPayload, to_raft_log_id, to_raft_vote};

/// Less than what an append may be held.
const A_MOMENT: Duration = Duration::from_micros(300);
const LONG: Duration = Duration::from_millis(50);

fn log_id(index: u64) -> log::LogId {
    log::LogId {
        term: 1,
        leader: 1,
        index,
    }
}

/// The entries from..to, with the commit that the leader knows.
fn append(from: u64, to: u64, commit: u64) -> AppendRequest {
    AppendRequest {
        vote: to_raft_vote(Vote {
            term: 1,
            leader: 1,
            committed: true,
        }),
        prev_log_id: Some(to_raft_log_id(log_id(from - 1))),
        leader_commit: Some(to_raft_log_id(log_id(commit))),
        entries: (from..to)
            .map(|index| Entry {
                log_id: to_raft_log_id(log_id(index)),
                payload: EntryPayload::Blank,
            })
            .collect(),
    }
}

/// What openraft makes of a commit when there is nothing else to send: `upto` is the last entry that was.
fn commit_only(upto: u64, commit: u64) -> AppendRequest {
    append(upto + 1, upto + 1, commit)
}

/// An append as the peer sees it: entries from..to, and the commit.
type Seen = (u64, u64, u64);

struct Peer {
    wire: Wire,
    session: u64,
}

impl Peer {
    async fn receive(&mut self) -> Seen {
        let frame: Frame<Request> = decode_frame(&self.wire.next().await.unwrap().unwrap()).unwrap();
        let Request::StreamAppend { session, append } = frame.body else {
            panic!("not an append: {frame:?}")
        };
        self.session = session;
        let append = append.into_raft().unwrap();
        let from = append.prev_log_id.unwrap().index + 1;
        (
            from,
            from + append.entries.len() as u64,
            append.leader_commit.unwrap().index,
        )
    }

    /// What has come by now.
    fn received(&mut self) -> Option<Seen> {
        self.receive().now_or_never()
    }

    async fn answer(&mut self, outcome: StreamOutcome) {
        self.answer_in(self.session, outcome).await;
    }

    async fn answer_in(&mut self, session: u64, outcome: StreamOutcome) {
        let body = Reply::StreamAppend { session, outcome };
        self.wire.send(encode_frame(&Frame { id: 0, body })).await.unwrap();
    }

    async fn take(&mut self, index: u64) {
        self.answer(StreamOutcome::Matching(Some(log_id(index)))).await;
    }
}

/// One end of a stream, the other, and what openraft has for it.
struct Bench {
    link: AppendLink,
    exchange: Exchange<UnboundedReceiver<AppendRequest>>,
    input: UnboundedSender<AppendRequest>,
    peer: Peer,
    hang_up: CancellationToken,
}

fn in_flight() -> InFlight {
    InFlight::new(
        IntGauge::new("now", "now").unwrap(),
        IntGauge::new("max", "max").unwrap(),
    )
}

impl Bench {
    /// Begins with entry 1.
    fn new() -> Self {
        let (near, far) = duplex(1 << 16);
        let hang_up = CancellationToken::new();
        let wire = |link: BoxLink| Framed::new(link, Framing::default());
        let mut link = AppendLink::new(wire(Box::new(near)), hang_up.clone());
        let (input, requests) = unbounded();
        let exchange = Exchange::begin(&mut link, append(1, 2, 0), requests, in_flight()).unwrap();
        Self {
            link,
            exchange,
            input,
            peer: Peer {
                wire: wire(Box::new(far)),
                session: 0,
            },
            hang_up,
        }
    }

    async fn next(&mut self) -> Option<Result<StreamOutcome, Broken>> {
        Some(self.next_sent().await?.map(|(outcome, _)| outcome))
    }

    async fn next_sent(&mut self) -> Option<Result<(StreamOutcome, Sent), Broken>> {
        let Self { link, exchange, .. } = self;
        poll_fn(|cx| exchange.poll_next(link, cx)).await
    }

    /// Does what can be done at once; there must be no answer yet.
    fn run(&mut self) {
        let answer = self.next().now_or_never();
        assert!(answer.is_none(), "{answer:?}");
    }

    fn push(&mut self, request: AppendRequest) {
        self.input.unbounded_send(request).unwrap();
        self.run();
    }

    /// The peer has these entries, and says so.
    async fn acked(&mut self, seen: Seen) {
        assert_eq!(self.peer.receive().await, seen);
        self.peer.take(seen.1 - 1).await;
        match self.next().await {
            Some(Ok(StreamOutcome::Matching(Some(id)))) => assert_eq!(id.index, seen.1 - 1),
            other => panic!("{other:?}"),
        }
    }

    /// Entries 1 and 2 have come so closely that a commit is worth holding.
    async fn at_pace() -> Self {
        let mut bench = Self::new();
        bench.run();
        bench.acked((1, 2, 0)).await;
        bench.push(commit_only(1, 1));
        bench.acked((2, 2, 1)).await;
        advance(A_MOMENT).await;
        bench.push(append(2, 3, 1));
        bench.acked((2, 3, 1)).await;
        bench
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_goes_along_with_the_entries_that_follow_closely() {
    let mut bench = Bench::at_pace().await;
    bench.push(commit_only(2, 2));
    advance(A_MOMENT).await;
    bench.run();
    assert_eq!(bench.peer.received(), None, "it is held");
    bench.push(append(3, 4, 2));
    bench.acked((3, 4, 2)).await;
    advance(LONG).await;
    bench.run();
    assert_eq!(bench.peer.received(), None, "it went along");
    assert!(bench.exchange.in_flight.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_nothing_follows_is_held_for_a_moment_only() {
    let mut bench = Bench::at_pace().await;
    // Another commit before the time is over does not begin it anew.
    bench.push(append(3, 5, 2));
    bench.acked((3, 5, 2)).await;
    let since = Instant::now();
    bench.push(commit_only(4, 3));
    advance(HOLD_MAX - Duration::from_micros(100)).await;
    bench.push(commit_only(4, 4));
    assert_eq!(bench.peer.received(), None, "it is held");
    let Bench {
        link, exchange, peer, ..
    } = &mut bench;
    let seen = tokio::select! {
        answer = poll_fn(|cx| exchange.poll_next(link, cx)) => panic!("{answer:?}"),
        seen = peer.receive() => seen,
    };
    assert_eq!(seen, (5, 5, 4), "one append, with the newer commit");
    // tokio's timer rounds up to a whole millisecond.
    assert!(
        since.elapsed() <= HOLD_MAX + Duration::from_millis(1),
        "{:?}",
        since.elapsed()
    );
    bench.peer.take(4).await;
    assert!(matches!(bench.next().await, Some(Ok(StreamOutcome::Matching(_)))));

    // The pace is lost: the next commit goes at once.
    bench.push(append(5, 6, 4));
    bench.acked((5, 6, 4)).await;
    bench.push(commit_only(5, 5));
    assert_eq!(bench.peer.received(), Some((6, 6, 5)));
}

/// openraft would take the answer for one to the commits behind it too.
#[tokio::test(start_paused = true)]
async fn an_answer_proves_only_what_was_sent_when_its_request_was() {
    let mut bench = Bench::at_pace().await;
    let entries_sent = Instant::now();
    bench.push(append(3, 4, 1));
    advance(A_MOMENT).await;
    bench.push(commit_only(3, 2));
    assert_eq!(bench.peer.receive().await, (3, 4, 1));
    bench.peer.take(3).await;
    let sent = bench.next_sent().await.unwrap().unwrap().1;
    assert_eq!((sent.term, sent.at), (1, entries_sent));
    advance(LONG).await;
    let commit_sent = Instant::now();
    bench.run();
    assert_eq!(bench.peer.receive().await, (4, 4, 2));
    bench.peer.take(3).await;
    assert_eq!(bench.next_sent().await.unwrap().unwrap().1.at, commit_sent);
}

#[tokio::test(start_paused = true)]
async fn where_entries_come_one_by_one_no_commit_is_held() {
    let mut bench = Bench::new();
    bench.run();
    bench.acked((1, 2, 0)).await;
    for index in 1..10 {
        bench.push(commit_only(index, index));
        bench.acked((index + 1, index + 1, index)).await;
        advance(LONG).await;
        bench.push(append(index + 1, index + 2, index));
        bench.acked((index + 1, index + 2, index)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_says_something_else_does_not_replace_a_commit() {
    let other_prev = append(2, 4, 2);
    let older_commit = append(3, 4, 1);
    let mut other_vote = append(3, 4, 2);
    other_vote.vote.leader_id.term = 2;
    for (later, seen) in [
        (other_prev, (2, 4, 2)),
        (older_commit, (3, 4, 1)),
        (other_vote, (3, 4, 2)),
    ] {
        let mut bench = Bench::at_pace().await;
        bench.push(commit_only(2, 2));
        bench.push(later);
        assert_eq!(bench.peer.received(), Some((3, 3, 2)));
        assert_eq!(bench.peer.received(), Some(seen));
        assert_eq!(bench.exchange.in_flight.len(), 2);
    }
}

/// It looks for where the logs part, or it is a stream that begins anew: openraft waits for its answer.
#[tokio::test(start_paused = true)]
async fn an_append_that_asks_where_the_peer_stands_is_not_held() {
    let mut bench = Bench::at_pace().await;
    bench.push(commit_only(7, 2));
    assert_eq!(bench.peer.received(), Some((8, 8, 2)));
}

#[tokio::test(start_paused = true)]
async fn at_the_end_what_is_held_is_sent_first() {
    let mut bench = Bench::at_pace().await;
    bench.push(commit_only(2, 2));
    assert_eq!(bench.peer.received(), None, "it is held");
    bench.input.disconnect();
    bench.run();
    bench.acked((3, 3, 2)).await;
    assert!(bench.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_entries_comes_out_also_if_a_commit_went_along() {
    let mut bench = Bench::at_pace().await;
    bench.push(commit_only(2, 2));
    bench.push(append(3, 4, 2));
    assert_eq!(bench.peer.received(), Some((3, 4, 2)));
    bench.peer.answer(StreamOutcome::Conflict(log_id(2))).await;
    let answer = bench.next().await;
    assert!(
        matches!(answer, Some(Ok(StreamOutcome::Conflict(id))) if id == log_id(2)),
        "{answer:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_ends_is_an_error_if_something_is_under_way() {
    let mut bench = Bench::new();
    drop(bench.peer);
    let answer = poll_fn(|cx| bench.exchange.poll_next(&mut bench.link, cx)).await;
    assert!(matches!(answer, Some(Err(Broken::Connection(_)))), "{answer:?}");

    let mut bench = Bench::at_pace().await;
    bench.push(commit_only(2, 2));
    drop(bench.peer);
    let answer = poll_fn(|cx| bench.exchange.poll_next(&mut bench.link, cx)).await;
    assert!(matches!(answer, Some(Err(Broken::Connection(_)))), "held: {answer:?}");

    let mut bench = Bench::at_pace().await;
    drop(bench.peer);
    let answer = poll_fn(|cx| bench.exchange.poll_next(&mut bench.link, cx)).await;
    assert!(matches!(answer, Some(Err(Broken::Idle))), "{answer:?}");
    assert!(!bench.link.is_open());
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_was_hung_up_ends_its_stream() {
    let mut bench = Bench::at_pace().await;
    assert!(bench.link.is_open());
    bench.hang_up.cancel();
    assert!(matches!(bench.next().await, Some(Err(Broken::Connection(_)))));
    assert!(!bench.link.is_open());
}

#[tokio::test(start_paused = true)]
async fn no_more_is_in_flight_than_the_window_holds() {
    let mut bench = Bench::new();
    let max = IN_FLIGHT_APPENDS_MAX as u64;
    for index in 2..=max + 8 {
        bench.push(append(index, index + 1, 0));
    }
    for index in 1..=max {
        assert_eq!(bench.peer.received(), Some((index, index + 1, 0)));
    }
    assert_eq!(bench.peer.received(), None);
    bench.peer.take(1).await;
    assert!(matches!(bench.next().await, Some(Ok(StreamOutcome::Matching(_)))));
    bench.run();
    assert_eq!(bench.peer.received(), Some((max + 1, max + 2, 0)));
    assert_eq!(bench.peer.received(), None);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_nothing_for_long_has_stopped() {
    let mut bench = Bench::at_pace().await;
    // While nothing is in flight nobody need answer.
    advance(2 * APPEND_STALL).await;
    bench.run();
    let since = Instant::now();
    for index in 3..5 {
        bench.push(append(index, index + 1, 2));
        advance(APPEND_STALL - LONG).await;
        bench.acked((index, index + 1, 2)).await;
    }
    bench.push(append(5, 6, 2));
    let answer = bench.next().await;
    assert!(matches!(answer, Some(Err(Broken::Stalled))), "{answer:?}");
    let waited = since.elapsed() - 2 * (APPEND_STALL - LONG);
    assert!(waited >= APPEND_STALL && waited < APPEND_STALL + LONG, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn answers_to_an_earlier_stream_are_passed_over() {
    let mut bench = Bench::at_pace().await;
    bench.push(append(3, 5, 2));
    let earlier = bench.peer.session;
    let (input, requests) = unbounded();
    bench.exchange = Exchange::begin(&mut bench.link, append(3, 4, 2), requests, in_flight()).unwrap();
    bench.input = input;
    bench.run();
    assert_eq!(bench.peer.received(), Some((3, 5, 2)));
    assert_eq!(bench.peer.received(), Some((3, 4, 2)));
    assert_ne!(bench.peer.session, earlier);
    bench
        .peer
        .answer_in(earlier, StreamOutcome::Matching(Some(log_id(4))))
        .await;
    bench.run();
    bench.peer.take(3).await;
    let answer = bench.next().await;
    assert!(
        matches!(answer, Some(Ok(StreamOutcome::Matching(Some(id)))) if id == log_id(3)),
        "{answer:?}"
    );
    // Nobody is asked now: an answer all the same is none that we could explain.
    bench.peer.take(3).await;
    assert!(matches!(bench.next().await, Some(Err(Broken::Connection(_)))));
}
