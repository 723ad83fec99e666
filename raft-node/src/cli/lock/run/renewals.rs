//! Renews a lock over all nodes, for as long as it is held.

use std::time::Duration;

use quorate_client::{Client, Error, Options};
use tokio::sync::mpsc;

use super::bounds::{Bounds, PAUSE};
use super::clock;

/// What is known of the lock.
#[derive(Debug)]
pub(crate) enum News {
    /// It is certainly held until then.
    Certain(Duration),
    /// It is not held any more.
    Lost(String),
    /// A node could not renew it; others are asked.
    Failed(String),
}

/// News on their way. More than one is there only while the command is being ended; then the task waits.
pub(crate) const NEWS: usize = 4;

pub(crate) struct Renewals {
    /// One for each node, so that each attempt is at one node and has its bounded time.
    nodes: Vec<Client>,
    lock: String,
    token: u64,
    bounds: Bounds,
}

impl Renewals {
    pub(crate) fn new(client: &Client, lock: &str, token: u64, bounds: Bounds) -> Result<Self, Error> {
        let options = Options {
            deadline: bounds.attempt,
            attempt: bounds.attempt,
            connect: bounds.attempt,
            ..client.options().clone()
        };
        let nodes = client.endpoints().into_iter();
        let nodes = nodes.map(|url| Client::new(&[url], options.clone()));
        Ok(Self {
            nodes: nodes.collect::<Result<_, _>>()?,
            lock: lock.to_owned(),
            token,
            bounds,
        })
    }

    /// Goes on until the lock is lost or nobody listens. `asked`: when the request was sent that is certain.
    pub(crate) async fn run(self, mut asked: Duration, news: mpsc::Sender<News>) {
        let mut nodes = (0..self.nodes.len()).cycle();
        let mut node = nodes.next().expect("a client has an endpoint");
        loop {
            let due = asked + self.bounds.renew_every;
            while clock::now() < due {
                tokio::time::sleep(clock::nap(due)).await;
            }
            asked = loop {
                let asked = clock::now();
                let told = match self.nodes[node].renew_lock(&self.lock, self.token, None).await {
                    Ok(held) => {
                        let certain = asked + Duration::from_millis(held.expires_in_ms);
                        if news.send(News::Certain(certain)).await.is_err() {
                            return;
                        }
                        break asked;
                    }
                    Err(error) if matches!(error.code(), Some("lock_lost" | "not_found")) => {
                        News::Lost(error.to_string())
                    }
                    Err(error) => News::Failed(error.to_string()),
                };
                let lost = matches!(told, News::Lost(_));
                if news.send(told).await.is_err() || lost {
                    return;
                }
                node = nodes.next().expect("a cycle has no end");
                tokio::time::sleep(PAUSE).await;
            };
        }
    }
}
