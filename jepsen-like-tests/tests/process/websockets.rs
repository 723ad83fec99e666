//! Sends over WebSockets while the leader dies: the sockets on the other nodes stay, every send is answered with its
//! outcome, and whoever repeats what he does not know under its client_id has each message in the room once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail, ensure};
use futures::{SinkExt, StreamExt};
use quorate_torture::cluster::Cluster;
use quorate_torture::wait::{Patience, eventually};
use quorate_torture::workload::whole_room;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::SOON;

/// Of each client.
const MESSAGES: usize = 400;
const IN_FLIGHT: usize = 16;

struct Client {
    cluster: Arc<Cluster>,
    name: String,
    /// Where it connects, in turn.
    nodes: Vec<u64>,
    /// Acknowledgements of all clients.
    acknowledged: Arc<AtomicU64>,
}

/// What a client has seen.
#[derive(Default)]
struct Seen {
    /// The seq of each text.
    seqs: BTreeMap<String, u64>,
    connections: usize,
    /// Problems by code and outcome.
    problems: BTreeSet<(String, String)>,
}

impl Client {
    async fn run(self) -> Result<Seen> {
        let mut seen = Seen::default();
        let mut patience = Patience::new("a socket", SOON);
        let mut left: BTreeSet<usize> = (0..MESSAGES).collect();
        while !left.is_empty() {
            let node = self.nodes[seen.connections % self.nodes.len()];
            seen.connections += 1;
            match open(&self.cluster, node).await {
                Ok(stream) => {
                    patience = Patience::new("a socket", SOON);
                    self.use_up(stream, &mut left, &mut seen).await?;
                }
                // A node that is dead is passed over.
                Err(error) => patience.again(error).await?,
            }
        }
        Ok(seen)
    }

    /// Until all is acknowledged or the connection is lost.
    async fn use_up(
        &self,
        mut stream: WebSocketStream<TcpStream>,
        left: &mut BTreeSet<usize>,
        seen: &mut Seen,
    ) -> Result<()> {
        let mut waiting: Vec<usize> = left.iter().rev().copied().collect();
        let mut open = 0;
        loop {
            while open < IN_FLIGHT
                && let Some(n) = waiting.pop()
            {
                let text = format!("{} {n}", self.name);
                let frame =
                    json!({"id": n.to_string(), "type": "send", "room": "hall", "client_id": text, "text": text});
                if stream.send(Message::text(frame.to_string())).await.is_err() {
                    return Ok(());
                }
                open += 1;
            }
            if left.is_empty() {
                return Ok(());
            }
            let text = match tokio::time::timeout(SOON, stream.next())
                .await
                .context("nothing was heard")?
            {
                Some(Ok(Message::Text(text))) => text,
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(()),
                Some(Ok(_)) => continue,
            };
            let answer: Value = serde_json::from_str(&text)?;
            let id = answer["id"].as_str().with_context(|| text.to_string())?;
            let n: usize = id.parse()?;
            open -= 1;
            if answer["type"] == "sent" {
                let seq = answer["seq"].as_u64().context("no seq")?;
                let before = seen.seqs.insert(format!("{} {n}", self.name), seq);
                ensure!(before.is_none_or(|before| before == seq), "{answer}: it was {before:?}");
                left.remove(&n);
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
            } else {
                let problem = &answer["problem"];
                ensure!(problem["retryable"] == true, "{answer}");
                let word = |field: &str| problem[field].as_str().unwrap_or_default().to_owned();
                seen.problems.insert((word("code"), word("outcome")));
                waiting.push(n);
            }
        }
    }
}

/// A socket that has said hello.
async fn open(cluster: &Cluster, node: u64) -> Result<WebSocketStream<TcpStream>> {
    let address = cluster.node(node).address();
    let socket = TcpStream::connect(address).await?;
    let (mut stream, _) = client_async(format!("ws://{address}/v1/ws"), socket).await?;
    match stream.next().await {
        Some(Ok(Message::Text(text))) if text.contains(r#""type":"hello""#) => Ok(stream),
        other => bail!("not a hello: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_loses_and_doubles_nothing_and_the_other_sockets_stay() {
    let cluster = Arc::new(Cluster::options().start().await.unwrap());
    cluster.create_room(1, "hall").await.unwrap();
    let leader = cluster.leader().await.unwrap();
    let others = cluster.others(leader);
    let acknowledged = Arc::new(AtomicU64::new(0));
    // Two on the leader, who go on at the others, and one on each of those, who stay.
    let clients = [
        vec![leader, others[0], others[1]],
        vec![leader, others[1], others[0]],
        vec![others[0]],
        vec![others[1]],
    ];
    let clients: Vec<_> = clients
        .into_iter()
        .enumerate()
        .map(|(n, nodes)| Client {
            cluster: cluster.clone(),
            name: format!("c{n}"),
            nodes,
            acknowledged: acknowledged.clone(),
        })
        .map(|client| tokio::spawn(client.run()))
        .collect();
    let far = async || match acknowledged.load(Ordering::Relaxed) {
        0..300 => Err("not enough is acknowledged"),
        _ => Ok(()),
    };
    eventually("sends before the fault", SOON, far).await.unwrap();
    cluster.kill(leader).await.unwrap();
    let before = acknowledged.load(Ordering::Relaxed);
    assert!(before < 4 * MESSAGES as u64, "all was sent before the leader died");

    let mut all = BTreeMap::new();
    for (n, client) in clients.into_iter().enumerate() {
        let seen = client.await.unwrap().unwrap();
        println!("client {n}: {} connections, {:?}", seen.connections, seen.problems);
        assert_eq!(seen.seqs.len(), MESSAGES);
        if n >= 2 {
            assert_eq!(seen.connections, 1, "client {n} lost its socket");
        }
        all.extend(seen.seqs);
    }
    let position = cluster.wait_writable(others[0], "hall").await.unwrap();
    let room = whole_room(&cluster, others[0], "hall", &position).await.unwrap();
    let ours: Vec<_> = room.into_iter().filter(|(_, text)| text.starts_with('c')).collect();
    assert_eq!(ours.len(), 4 * MESSAGES, "lost or doubled");
    for (seq, text) in ours {
        assert_eq!(all.get(&text), Some(&seq), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminated_node_answers_what_it_was_asked_and_says_goodbye() {
    let cluster = Cluster::options().start().await.unwrap();
    cluster.create_room(1, "hall").await.unwrap();
    let node = cluster.others(cluster.leader().await.unwrap())[0];
    let mut stream = open(&cluster, node).await.unwrap();
    for n in 0..IN_FLIGHT {
        let frame = json!({"id": n.to_string(), "type": "send", "room": "hall", "text": "a"});
        stream.feed(Message::text(frame.to_string())).await.unwrap();
    }
    stream.flush().await.unwrap();
    let mut answers = 0;
    let hear = async {
        loop {
            match stream.next().await {
                Some(Ok(Message::Text(_))) => answers += 1,
                Some(Ok(Message::Close(Some(frame)))) => return u16::from(frame.code),
                Some(Ok(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    let (status, code) = tokio::join!(cluster.terminate(node, SOON), tokio::time::timeout(SOON, hear));
    assert_eq!(status.unwrap().code(), Some(0));
    assert_eq!(code.unwrap(), 1001);
    // What was not read any more was not done: nobody has been left without a word about what was.
    let position = cluster
        .wait_writable(cluster.leader().await.unwrap(), "hall")
        .await
        .unwrap();
    let leader = cluster.leader().await.unwrap();
    let room = whole_room(&cluster, leader, "hall", &position).await.unwrap();
    let sent = room.iter().filter(|(_, text)| text == "a").count();
    assert!(sent <= answers, "{sent} in the room, {answers} answered");
}
