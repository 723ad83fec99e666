//! Many clients that write and read rooms without pause, until they are stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use crate::workload::{Chat, Sent};

/// A write that no node answers in this time is given up, its outcome unknown.
const SEND_TIMEOUT: Duration = Duration::from_secs(2);
/// After an answer that says "not now", so that a cluster without a leader is not flooded.
const BACK_OFF: Duration = Duration::from_millis(10);

/// Clients at work until they are stopped.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: JoinSet<()>,
}

impl Load {
    /// `writers` clients send without pause and `readers` read without pause, each going from node
    /// to node and from room to room in turn.
    pub fn start(chat: &Arc<Chat>, nodes: &[u64], writers: u64, readers: u64) -> Self {
        Self::start_on(chat, Some(nodes), writers, readers)
    }

    /// The same on all nodes that the cluster has at the time, also those that are added later.
    pub fn everywhere(chat: &Arc<Chat>, writers: u64, readers: u64) -> Self {
        Self::start_on(chat, None, writers, readers)
    }

    fn start_on(chat: &Arc<Chat>, nodes: Option<&[u64]>, writers: u64, readers: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        for number in 0..writers + readers {
            let client = Client {
                chat: chat.clone(),
                nodes: nodes.map(<[u64]>::to_vec),
                stop: stop.clone(),
                turn: number as usize,
            };
            match number < writers {
                true => clients.spawn(Box::pin(client.write())),
                false => clients.spawn(Box::pin(client.read())),
            };
        }
        Self { stop, clients }
    }

    /// Lets every client finish what it has begun.
    pub async fn stop(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended.context("a client panicked")?;
        }
        Ok(())
    }
}

struct Client {
    chat: Arc<Chat>,
    /// None: those that the cluster has.
    nodes: Option<Vec<u64>>,
    stop: Arc<AtomicBool>,
    turn: usize,
}

impl Client {
    async fn write(mut self) {
        let mut process = self.chat.history.new_client();
        while let Some((node, room)) = self.next() {
            match self.chat.send(process, node, &room, SEND_TIMEOUT).await {
                Sent::Committed { .. } => {}
                Sent::Refused(_) | Sent::NotSent(_) => tokio::time::sleep(BACK_OFF).await,
                Sent::Unknown(_) => {
                    // It may still take effect: this process must not be seen to do anything else.
                    process = self.chat.history.new_client();
                    tokio::time::sleep(BACK_OFF).await;
                }
            }
        }
    }

    async fn read(mut self) {
        let process = self.chat.history.new_client();
        while let Some((node, room)) = self.next() {
            let answer = self.chat.read(process, node, &room, SEND_TIMEOUT).await;
            if !answer.is_ok_and(|answer| answer.status == 200) {
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }

    /// The node and room of the next operation; none when it is time to stop.
    fn next(&mut self) -> Option<(u64, String)> {
        if self.stop.load(Ordering::Relaxed) {
            return None;
        }
        self.turn += 1;
        let nodes = self.nodes.clone().unwrap_or_else(|| self.chat.cluster.ids());
        let node = nodes[self.turn % nodes.len()];
        let room = self.chat.rooms[self.turn / nodes.len() % self.chat.rooms.len()].clone();
        Some((node, room))
    }
}
