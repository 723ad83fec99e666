//! The connections that other nodes keep to this one. A node that has one lives, as far as this one can tell.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;

/// Which connections there are, by node and number. Bounded by the server, which bounds the connections.
#[derive(Debug, Clone, Default)]
pub struct Inbound(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Held for a look-up only, never across an await.
    links: Mutex<Links>,
    /// Changes with each connection that comes or goes.
    news: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Links {
    next: u64,
    of_node: BTreeMap<u64, BTreeSet<u64>>,
}

/// One connection; dropped when it has ended and all that came on it has been dealt with.
#[derive(Debug)]
pub struct Linked {
    inbound: Inbound,
    node: u64,
    number: u64,
}

impl Inbound {
    pub fn enter(&self, node: u64) -> Arc<Linked> {
        let number = {
            let mut links = self.lock();
            let number = links.next;
            links.next += 1;
            links.of_node.entry(node).or_default().insert(number);
            number
        };
        self.tell();
        Arc::new(Linked {
            inbound: self.clone(),
            node,
            number,
        })
    }

    /// The number of the next connection: those that there are have smaller ones.
    pub(super) fn next(&self) -> u64 {
        self.lock().next
    }

    /// Whether the node has a connection with a smaller number.
    pub(super) fn has(&self, node: u64, before: u64) -> bool {
        let links = self.lock();
        let oldest = links.of_node.get(&node).and_then(|numbers| numbers.first());
        oldest.is_some_and(|number| *number < before)
    }

    pub(super) fn news(&self) -> watch::Receiver<u64> {
        self.0.news.subscribe()
    }

    fn tell(&self) {
        self.0.news.send_modify(|news| *news += 1);
    }

    fn lock(&self) -> MutexGuard<'_, Links> {
        self.0.links.lock().expect("no panic while the lock is held")
    }
}

impl Drop for Linked {
    fn drop(&mut self) {
        {
            let mut links = self.inbound.lock();
            if let Some(numbers) = links.of_node.get_mut(&self.node) {
                numbers.remove(&self.number);
                if numbers.is_empty() {
                    links.of_node.remove(&self.node);
                }
            }
        }
        self.inbound.tell();
    }
}
