//! What can be done to the machines of a cluster, apart from signals: to their networks, disks and clocks.
//! Each says in its result why it cannot be done where the cluster was started without what it needs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use super::levers::{Syncs, has_failing_syncs};
use super::loop_disk::LoopDisk;
use super::namespaces::{Namespaces, Refused};
use super::{Cluster, KILL_TIMEOUT, Node, clocks};
use crate::http::Call;

/// Why a fault cannot be made.
type Why = String;

impl Cluster {
    /// Whether each node is on a machine of its own, with its own disk.
    pub fn is_isolated(&self) -> Result<(), Why> {
        match self.namespaces {
            Some(_) => Ok(()),
            None => Err("the nodes have no network namespaces and no disks of their own".to_owned()),
        }
    }

    /// Whether links between nodes can be cut.
    pub fn has_breakable_links(&self) -> Result<(), Why> {
        match self.network {
            Some(_) => Ok(()),
            None => Err("the links between the nodes have no proxies".to_owned()),
        }
    }

    /// Whether the nodes' wall clocks can be moved.
    pub fn has_movable_clocks(&self) -> Result<(), Why> {
        match (self.levers, clocks::library()) {
            (true, Some(_)) => Ok(()),
            (true, None) => Err("libfaketime is not installed (Debian package faketime)".to_owned()),
            (false, _) => Err("the nodes were started with the machine's own clock".to_owned()),
        }
    }

    /// Whether the nodes' syncs can be made to fail.
    pub fn has_failing_syncs(&self) -> Result<(), Why> {
        match (self.levers, has_failing_syncs()) {
            (true, true) => Ok(()),
            (true, false) => Err("libfiu is not installed (Debian package fiu-utils)".to_owned()),
            (false, _) => Err("the nodes were started without libfiu".to_owned()),
        }
    }

    fn namespaces(&self) -> Result<&Namespaces> {
        self.namespaces.as_ref().context("the nodes have no network namespaces")
    }

    fn with_disk<T>(&self, id: u64, work: impl FnOnce(&LoopDisk) -> Result<T>) -> Result<T> {
        let node = self.known(id);
        let disk = node.disk.as_ref().context("the nodes have no disks of their own")?;
        work(disk).with_context(|| format!("the disk of node {id}"))
    }

    /// Adds one cut: nothing that `from` sends reaches `to`. Ends with one [`Cluster::mend_link`].
    pub fn cut_link(&self, from: u64, to: u64) -> Result<()> {
        match &self.namespaces {
            Some(namespaces) => {
                let source = self.block.peer(self.known(from).slot).ip();
                namespaces.refuse(self.known(to).slot, &Refused::From(source))
            }
            None => {
                self.network().hold(from, to);
                Ok(())
            }
        }
    }

    pub fn mend_link(&self, from: u64, to: u64) -> Result<()> {
        match &self.namespaces {
            Some(namespaces) => {
                let source = self.block.peer(self.known(from).slot).ip();
                namespaces.accept(self.known(to).slot, &Refused::From(source))
            }
            None => {
                self.network().release(from, to);
                Ok(())
            }
        }
    }

    /// The node does not hear its clients any more, only its peers.
    pub fn cut_clients(&self, id: u64) -> Result<()> {
        let namespaces = self.namespaces()?;
        namespaces.refuse(self.known(id).slot, &Refused::From(namespaces.outside()))
    }

    pub fn mend_clients(&self, id: u64) -> Result<()> {
        let namespaces = self.namespaces()?;
        namespaces.accept(self.known(id).slot, &Refused::From(namespaces.outside()))
    }

    /// Of all packets to the node, this share is lost, at random.
    pub fn lose_packets(&self, id: u64, share: f64) -> Result<()> {
        self.namespaces()?.refuse(self.known(id).slot, &Refused::Share(share))
    }

    pub fn keep_packets(&self, id: u64, share: f64) -> Result<()> {
        self.namespaces()?.accept(self.known(id).slot, &Refused::Share(share))
    }

    /// Undoes all cuts and losses, and clears up.
    pub fn mend_network(&self) -> Result<()> {
        if let Some(network) = &self.network {
            network.heal();
            network.clear_up();
        }
        self.namespaces.as_ref().map_or(Ok(()), Namespaces::accept_all)
    }

    /// Pulls the plug of all of them at once: their disks take nothing any more, then their processes are
    /// killed. When they start again they find what they had synced. They do not start by themselves.
    pub async fn cut_power(&self, ids: &[u64]) -> Result<()> {
        for id in ids {
            self.with_disk(*id, LoopDisk::shut_down)?;
        }
        self.end(ids).await?;
        self.restore_disks(ids).await
    }

    /// From now on each write and each sync of the node is an error.
    pub fn break_disk(&self, id: u64) -> Result<()> {
        self.with_disk(id, LoopDisk::shut_down)
    }

    /// The disks of nodes that have ended or are about to: as they were when they broke.
    pub async fn restore_disks(&self, ids: &[u64]) -> Result<()> {
        for id in ids {
            self.node(*id).process.wait_end(KILL_TIMEOUT).await?;
            self.with_disk(*id, LoopDisk::mount_again)?;
        }
        Ok(())
    }

    /// Every write to the node's disk hangs, until [`Cluster::thaw_disk`].
    pub fn freeze_disk(&self, id: u64) -> Result<()> {
        self.with_disk(id, LoopDisk::freeze)
    }

    pub fn thaw_disk(&self, id: u64) -> Result<()> {
        self.with_disk(id, LoopDisk::thaw)
    }

    /// Leaves only so many bytes free on the node's disk.
    pub fn fill_disk(&self, id: u64, left: u64) -> Result<()> {
        self.with_disk(id, |disk| disk.fill(left).map(|_| ()))
    }

    /// Takes back what [`Cluster::fill_disk`] did.
    pub fn make_room(&self, id: u64) -> Result<()> {
        self.with_disk(id, |disk| {
            disk.make_room();
            Ok(())
        })
    }

    /// Gives back the room of a node's disk that is no part of the cluster any more. Elsewhere nothing is done.
    pub(crate) fn discard_disk(&self, id: u64) {
        if let Some(disk) = &self.known(id).disk {
            disk.discard();
        }
    }

    /// Moves the node's wall clock to so many seconds from the right time.
    pub fn set_clock(&self, id: u64, offset_s: i64) -> Result<()> {
        let node = self.known(id);
        node.levers
            .as_ref()
            .context("the node has no movable clock")?
            .set_clock(offset_s)
    }

    /// From now on these calls of the node's process fail, until it ends.
    pub fn fail_syncs(&self, id: u64, syncs: Syncs) -> Result<()> {
        let node = self.node(id);
        let pid = node.process.id().context("the node was never started")?;
        node.levers
            .as_ref()
            .context("the node has no failing syncs")?
            .fail(pid, syncs)
    }

    /// Who leads, as one question to each node shows it; none: nobody says that he does.
    pub async fn leader_now(&self) -> Option<u64> {
        let claims = self.claims(&self.ids()).await.ok()?;
        let leading = claims.into_iter().filter(|(_, leads, _)| *leads);
        leading.max().map(|(_, _, id)| id)
    }

    /// Sends the call to this node; None: it does not answer, or not within this time.
    pub(crate) async fn try_send(&self, id: u64, call: Call, within: Duration) -> Option<crate::http::Answer> {
        let asked = tokio::time::timeout(within, self.send(id, call.timeout(within))).await;
        asked.ok()?.ok()
    }

    /// Nodes that are or were of the cluster.
    pub(crate) fn all_known(&self) -> Vec<(u64, Arc<Node>)> {
        let gone = self.gone.lock().expect("no holder of this lock panics").clone();
        let nodes = self
            .read_nodes()
            .iter()
            .map(|(id, node)| (*id, node.clone()))
            .collect::<Vec<_>>();
        nodes.into_iter().chain(gone).collect()
    }

    /// kill -9 to those of them that run, before any is waited for.
    pub(crate) async fn end(&self, ids: &[u64]) -> Result<()> {
        for id in ids {
            // It may have ended a moment ago.
            let _ = self.node(*id).process.signal(Signal::SIGKILL);
        }
        for id in ids {
            self.node(*id).process.wait_end(KILL_TIMEOUT).await?;
        }
        Ok(())
    }

    /// Copies the logs of all nodes, also of those that are gone, to this folder.
    pub fn keep_logs(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder)?;
        for entry in std::fs::read_dir(self.folder.path())? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "log")
                && let Some(name) = path.file_name()
            {
                std::fs::copy(&path, folder.join(name))?;
            }
        }
        Ok(())
    }
}
