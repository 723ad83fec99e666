//! A room's stream can be cut anywhere and resumed on any node: each message comes once, in order.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use quorate_torture::cluster::Cluster;
use quorate_torture::http::Call;
use quorate_torture::load::Load;
use quorate_torture::stream::{Event, Stream};
use quorate_torture::workload::{Chat, each_once, messages, whole_room};
use serde_json::{Value, json};

use crate::SOON;

const PATH: &str = "/v1/rooms/hall/stream";

fn seq_of(event: &Event) -> u64 {
    event.data["seq"]
        .as_u64()
        .unwrap_or_else(|| panic!("a message without seq: {event:?}"))
}

fn resume_after(id: &Option<String>) -> Call {
    match id {
        Some(id) => Call::get(PATH).header("Last-Event-ID", id),
        None => Call::get(format!("{PATH}?after=0")),
    }
}

/// The last place in the stream and everything delivered so far.
#[derive(Default)]
struct Reader {
    last_id: Option<String>,
    delivered: Vec<(u64, String)>,
}

impl Reader {
    /// Reads at most `count` messages from the node, then hangs up. Ends early when the stream ends
    /// and while the node knows no leader; anything else is an error.
    async fn read(&mut self, cluster: &Cluster, node: u64, count: usize) -> Result<()> {
        let url = cluster.node(node).url();
        let opened = Stream::open(cluster.http(), &url, resume_after(&self.last_id)).await?;
        let mut stream = match opened {
            Ok(stream) => stream,
            Err(refused) if refused.status == 503 && refused.code() == "no_leader" => return Ok(()),
            Err(refused) => bail!("node {node} refused the stream: {refused}"),
        };
        let mut wanted = count;
        while wanted > 0 {
            let Some(event) = stream.next(SOON).await? else {
                return Ok(());
            };
            if event.name == "message" {
                self.delivered
                    .push((seq_of(&event), event.data["text"].as_str().unwrap().to_owned()));
                wanted -= 1;
            }
            // Every event is a place to resume from.
            self.last_id = Some(event.id.expect("every event has a position"));
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_goes_from_node_to_node_while_the_leader_dies() {
    let cluster = Arc::new(Cluster::options().start().await.unwrap());
    let chat = Chat::begin(cluster.clone(), &["hall"]).await.unwrap();
    let load = Load::start(&chat, &cluster.ids(), 2, 0);

    let mut reader = Reader::default();
    // Cut after one, after two, after three, … in turn, on one node after the other.
    let cuts = [1, 2, 3, 5, 8, 13];
    let nodes = cluster.ids();
    let mut killed = None;
    for turn in 0..60_usize {
        if turn == 30 {
            let leader = cluster.leader().await.unwrap();
            cluster.kill(leader).await.unwrap();
            chat.history.fault("kill", Some(leader));
            killed = Some(leader);
        }
        let node = nodes[turn % nodes.len()];
        match reader.read(&cluster, node, cuts[turn % cuts.len()]).await {
            Err(error) if killed != Some(node) => panic!("node {node}, in turn {turn}: {error:#}"),
            // A dead node refuses connections.
            _ => {}
        }
    }
    let killed = killed.unwrap();
    chat.wait_acknowledged(20, SOON).await.unwrap();
    load.stop().await.unwrap();
    cluster.restart(killed).unwrap();
    cluster.wait_all_ready().await.unwrap();
    chat.judge().await.unwrap();

    // The rest, up to the last message, from the node that was dead.
    let position = cluster
        .expect(killed, Call::get("/v1/rooms"), 200)
        .await
        .unwrap()
        .position()
        .unwrap();
    let room = whole_room(&cluster, killed, "hall", &position).await.unwrap();
    reader
        .read(&cluster, killed, room.len() - reader.delivered.len())
        .await
        .unwrap();
    let seqs: Vec<u64> = reader.delivered.iter().map(|(seq, _)| *seq).collect();
    each_once(&seqs, room.len() as u64).unwrap();
    assert_eq!(reader.delivered, room);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_resumes_after_any_message_on_any_node() {
    let cluster = Cluster::options().start().await.unwrap();
    cluster.create_room(1, "hall").await.unwrap();
    let mut last = 0;
    for number in 0..10 {
        cluster
            .expect(
                1,
                Call::post(messages("hall"), &json!({ "text": format!("m{number}") })),
                201,
            )
            .await
            .unwrap();
        last += 1;
    }
    // The messages of a batch are one change: a cut must be possible between them all the same.
    let batch: Vec<Value> = (0..10).map(|number| json!({ "text": format!("b{number}") })).collect();
    let path = format!("{}/batch", messages("hall"));
    let sent = cluster
        .expect(2, Call::post(path, &json!({ "messages": batch })), 201)
        .await
        .unwrap();
    last += 10;
    let position = sent.position().unwrap();
    for node in cluster.ids() {
        whole_room(&cluster, node, "hall", &position).await.unwrap();
    }

    // Every node gives every message the same place.
    let mut ids: Vec<Vec<String>> = Vec::new();
    for node in cluster.ids() {
        let mut stream = open(&cluster, node, Call::get(format!("{PATH}?after=0"))).await;
        let mut of_node = Vec::new();
        for seq in 1..=last {
            let event = stream.next_named("message", SOON).await.unwrap().unwrap();
            assert_eq!(seq_of(&event), seq, "node {node}");
            let id = event.id.clone().unwrap();
            let got = cluster
                .expect(node, Call::get(format!("{}/{seq}", messages("hall"))), 200)
                .await
                .unwrap();
            assert_eq!(
                event.data,
                got.json().unwrap(),
                "the stream shows a message as GET does"
            );
            of_node.push(id);
        }
        ids.push(of_node);
    }
    assert_eq!(ids[0], ids[1]);
    assert_eq!(ids[1], ids[2]);

    // Last-Event-ID wins over `after`.
    for seq in 1..last {
        for node in cluster.ids() {
            let id = &ids[0][seq as usize - 1];
            let call = Call::get(format!("{PATH}?after=0")).header("Last-Event-ID", id);
            let mut stream = open(&cluster, node, call).await;
            let event = stream.next_named("message", SOON).await.unwrap().unwrap();
            assert_eq!(seq_of(&event), seq + 1, "after seq {seq} on node {node}");
        }
    }
    // After the last message, and from now, the next one is the next one.
    let mut streams = vec![
        open(&cluster, 2, resume_after(&ids[0].last().cloned())).await,
        open(&cluster, 3, Call::get(format!("{PATH}?after={last}"))).await,
        open(&cluster, 1, Call::get(PATH)).await,
    ];
    cluster
        .expect(3, Call::post(messages("hall"), &json!({ "text": "the last" })), 201)
        .await
        .unwrap();
    for stream in &mut streams {
        let event = stream.next_named("message", SOON).await.unwrap().unwrap();
        assert_eq!(seq_of(&event), last + 1);
        assert_eq!(event.data["text"], "the last");
    }
}

/// A stream says where it is even when nothing happens, and that place can be resumed from.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bookmark_is_a_place_to_resume_from() {
    let cluster = Cluster::options().start().await.unwrap();
    cluster.create_room(1, "hall").await.unwrap();
    let mut stream = open(&cluster, 1, Call::get(PATH)).await;
    // Promised at least every 15 s.
    let bookmark = stream
        .next_named("bookmark", Duration::from_secs(16))
        .await
        .unwrap()
        .unwrap();
    drop(stream);
    cluster
        .expect(
            2,
            Call::post(messages("hall"), &json!({ "text": "after the bookmark" })),
            201,
        )
        .await
        .unwrap();
    let mut resumed = open(&cluster, 3, resume_after(&bookmark.id)).await;
    let event = resumed.next_named("message", SOON).await.unwrap().unwrap();
    assert_eq!(event.data["text"], "after the bookmark");
}

async fn open(cluster: &Cluster, node: u64, call: Call) -> Stream {
    let opened = Stream::open(cluster.http(), &cluster.node(node).url(), call)
        .await
        .unwrap();
    opened.unwrap_or_else(|refused| panic!("node {node} refused the stream: {refused}"))
}
