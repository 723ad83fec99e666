//! Messages in motion while the leader dies: a stream tells of each edit and redaction once, wherever it is cut
//! and resumed, an edit that is repeated under its key is answered alike, and all nodes end with the same texts.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use quorate_torture::cluster::Cluster;
use quorate_torture::http::{Answer, Call};
use quorate_torture::stream::{Event, Stream};
use quorate_torture::wait::eventually;
use quorate_torture::workload::messages;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{CLUSTER_VERSION, SOON};

const STREAM: &str = "/v1/rooms/hall/stream";
/// The writer edits messages from 1 on in turn; of the last ones he redacts one now and then.
const MESSAGES: u64 = 40;
const REDACTED_FROM: u64 = 33;
/// Nobody but the test itself edits this one.
const KEYED: u64 = MESSAGES + 1;

fn message(seq: u64) -> String {
    format!("{}/{seq}", messages("hall"))
}

fn edit(seq: u64, text: &str, key: &str) -> Call {
    Call::new(Method::PATCH, message(seq))
        .json(&json!({ "text": text }))
        .key(key)
}

/// Asks one node after the other until the change is answered with `status`: under its key it is made once.
async fn until_done(cluster: &Cluster, call: &Call, status: u16) -> Answer {
    let (nodes, turn) = (cluster.ids(), AtomicUsize::new(0));
    eventually("the change is acknowledged", SOON, async || {
        let node = nodes[turn.fetch_add(1, Ordering::Relaxed) % nodes.len()];
        match cluster.send(node, call.clone()).await {
            Ok(answer) if answer.status == status => Ok(answer),
            Ok(answer) => Err(answer.to_string()),
            Err(error) => Err(error.to_string()),
        }
    })
    .await
    .unwrap()
}

/// What was acknowledged, in order. The rev of a redaction is read afterwards: 204 has no body.
#[derive(Debug, Default)]
struct Written {
    /// `edit` or `redact`, the seq, and the rev of an edit.
    changes: Vec<(&'static str, u64, Option<u64>)>,
    /// Every text of a message, by its rev.
    texts: BTreeMap<u64, Vec<(u64, String)>>,
}

impl Written {
    fn edited(&mut self, seq: u64, text: &str, answer: &Answer) {
        let edited = answer.json().unwrap();
        assert_eq!(edited["text"], text, "{answer}");
        let rev = edited["rev"].as_u64().unwrap();
        self.changes.push(("edit", seq, Some(rev)));
        self.texts.entry(seq).or_default().push((rev, text.to_owned()));
    }
}

/// One change after the other until it is told to stop, so that the answer to a repeated one is that to the first.
async fn write(cluster: &Cluster, mut written: Written, stop: &AtomicBool, done: &AtomicUsize) -> Written {
    let mut redacted = REDACTED_FROM;
    for n in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        if n % 25 == 24 && redacted <= MESSAGES {
            let call = Call::new(Method::DELETE, message(redacted)).key(&format!("redact-{redacted}"));
            until_done(cluster, &call, 204).await;
            written.changes.push(("redact", redacted, None));
            redacted += 1;
        } else {
            let seqs: Vec<u64> = (1..REDACTED_FROM).chain(redacted..=MESSAGES).collect();
            let (seq, text) = (seqs[n as usize % seqs.len()], format!("edit {n}"));
            let answer = until_done(cluster, &edit(seq, &text, &format!("edit-{n}")), 200).await;
            written.edited(seq, &text, &answer);
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
    written
}

/// The last place in the stream and everything delivered so far.
#[derive(Default)]
struct Reader {
    last_id: Option<String>,
    delivered: Vec<Event>,
}

impl Reader {
    /// Reads at most `count` events from the node, bookmarks aside, then hangs up. Ends early when the stream
    /// ends, and when the node is not there.
    async fn read(&mut self, cluster: &Cluster, node: u64, count: usize) {
        let call = match &self.last_id {
            Some(id) => Call::get(STREAM).header("Last-Event-ID", id),
            None => Call::get(format!("{STREAM}?after=0")),
        };
        let Ok(Ok(mut stream)) = Stream::open(cluster.http(), &cluster.node(node).url(), call).await else {
            return;
        };
        let mut wanted = count;
        while wanted > 0 {
            let Ok(Some(event)) = stream.next(SOON).await else {
                return;
            };
            self.last_id.clone_from(&event.id);
            assert!(event.id.is_some(), "every event has a position: {event:?}");
            if event.name != "bookmark" {
                self.delivered.push(event);
                wanted -= 1;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_tells_of_each_edit_once_while_the_leader_dies() {
    let cluster = Cluster::options().start().await.unwrap();
    cluster.wait_version(CLUSTER_VERSION).await.unwrap();
    cluster.create_room(1, "hall").await.unwrap();
    for seq in 1..=KEYED {
        let call = Call::post(messages("hall"), &json!({ "text": format!("first {seq}") }));
        cluster.expect(1, call, 201).await.unwrap();
    }
    let keyed = edit(KEYED, "edited under a key", "keyed");
    let answered = until_done(&cluster, &keyed, 200).await;
    let mut written = Written::default();
    written.edited(KEYED, "edited under a key", &answered);

    // First come the messages, all of them; then what becomes of them, from the edit above on.
    let mut reader = Reader::default();
    reader.read(&cluster, 1, KEYED as usize).await;
    let (stop, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    let leader = cluster.leader().await.unwrap();
    let meanwhile = async {
        let (nodes, cuts) = (cluster.ids(), [1, 2, 3, 5, 8, 13]);
        for turn in 0..60_usize {
            if turn == 30 {
                cluster.kill(leader).await.unwrap();
            }
            let node = nodes[turn % nodes.len()];
            if turn < 30 || node != leader {
                reader.read(&cluster, node, cuts[turn % cuts.len()]).await;
            }
        }
        // Whoever did not hear of his edit asks again, at any node, and is told what he would have been told.
        for node in cluster.others(leader) {
            let again = cluster.expect(node, keyed.clone(), 200).await.unwrap();
            let replayed = again.header("Idempotency-Replayed");
            assert_eq!(replayed, Some("true"), "node {node}: {again}");
            assert_eq!(again.body, answered.body, "node {node}");
            assert_eq!(again.header("ETag"), answered.header("ETag"), "node {node}");
        }
        let before = done.load(Ordering::Relaxed);
        eventually("edits go on without the old leader", SOON, async || {
            match done.load(Ordering::Relaxed) - before {
                100.. => Ok(()),
                done => Err(format!("{done} of 100")),
            }
        })
        .await
        .unwrap();
        stop.store(true, Ordering::Relaxed);
    };
    let (written, ()) = tokio::join!(write(&cluster, written, &stop, &done), meanwhile);
    cluster.restart(leader).unwrap();
    cluster.wait_all_ready().await.unwrap();

    // The rest from the node that was dead.
    let total = KEYED as usize + written.changes.len();
    let missing = total.saturating_sub(reader.delivered.len());
    reader.read(&cluster, leader, missing).await;
    judge(&cluster, &reader.delivered, &written).await;
    cluster.verify().await.unwrap();
}

/// What was delivered is what was acknowledged, each once and in order, and leads to what every node shows.
async fn judge(cluster: &Cluster, delivered: &[Event], written: &Written) {
    let stored = stored(cluster).await;
    let (sent, moved) = delivered.split_at(KEYED as usize);
    let seqs: Vec<_> = sent
        .iter()
        .map(|event| (event.name.as_str(), event.data["seq"].as_u64()))
        .collect();
    assert_eq!(seqs, (1..=KEYED).map(|seq| ("message", Some(seq))).collect::<Vec<_>>());

    let told: Vec<_> = moved
        .iter()
        .map(|event| {
            (
                event.name.as_str(),
                event.data["seq"].as_u64().unwrap(),
                event.data["rev"].as_u64(),
            )
        })
        .collect();
    let rev_of = |seq: u64| stored[seq as usize - 1]["rev"].as_u64();
    let expected: Vec<_> = written
        .changes
        .iter()
        .map(|(name, seq, rev)| (*name, *seq, rev.or_else(|| rev_of(*seq))))
        .collect();
    assert_eq!(told, expected);
    assert!(told.iter().any(|(name, ..)| *name == "redact"), "some were redacted");

    // An edit comes with its text or a later one, or with none if the message was redacted by then.
    let mut texts: BTreeMap<u64, Value> = sent
        .iter()
        .map(|event| (seq_of(event), event.data["text"].clone()))
        .collect();
    for event in moved {
        let (seq, text) = (seq_of(event), event.data["text"].clone());
        if event.name == "edit" {
            let known = written.texts[&seq]
                .iter()
                .any(|(rev, known)| Some(*rev) >= event.data["rev"].as_u64() && text == **known);
            let redacted = text.is_null() && stored[seq as usize - 1].get("redacted_at").is_some();
            assert!(known || redacted, "{event:?}");
        }
        texts.insert(seq, text);
    }
    let shown: Vec<&Value> = texts.values().collect();
    let now: Vec<&Value> = stored.iter().map(|message| &message["text"]).collect();
    assert_eq!(shown, now, "whoever follows the stream has what is stored");

    for (seq, said) in &written.texts {
        let mut found = revisions(cluster, *seq).await;
        if let Some(text) = stored[*seq as usize - 1]["text"].as_str() {
            found.push(text.to_owned());
            assert_eq!(found[0], format!("first {seq}"));
            let said: Vec<&String> = said.iter().map(|(_, text)| text).collect();
            assert_eq!(found[1..].iter().collect::<Vec<_>>(), said, "message {seq}");
        } else {
            assert!(found.is_empty(), "message {seq} is redacted: {found:?}");
        }
    }
}

fn seq_of(event: &Event) -> u64 {
    event.data["seq"]
        .as_u64()
        .unwrap_or_else(|| panic!("no seq: {event:?}"))
}

/// The room's messages, the same on every node.
async fn stored(cluster: &Cluster) -> Vec<Value> {
    let mut rooms: Vec<Vec<Value>> = Vec::new();
    for node in cluster.ids() {
        let page = cluster.expect(node, Call::get(messages("hall")), 200).await.unwrap();
        rooms.push(page.json().unwrap()["messages"].as_array().unwrap().clone());
    }
    assert!(rooms.iter().all(|room| *room == rooms[0]), "{rooms:?}");
    assert_eq!(rooms[0].len() as u64, KEYED);
    rooms.swap_remove(0)
}

/// Every earlier text, collected in pages from one node after the other.
async fn revisions(cluster: &Cluster, seq: u64) -> Vec<String> {
    let (mut texts, mut cursor) = (Vec::new(), String::new());
    for node in cluster.ids().into_iter().cycle() {
        let path = format!("{}/revisions?limit=50{cursor}", message(seq));
        let page = cluster
            .expect(node, Call::get(path), 200)
            .await
            .unwrap()
            .json()
            .unwrap();
        let revisions = page["revisions"].as_array().unwrap();
        texts.extend(revisions.iter().map(|it| it["text"].as_str().unwrap().to_owned()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    texts
}
