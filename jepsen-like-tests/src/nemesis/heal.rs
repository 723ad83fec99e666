//! The end of all faults; and which ends of processes were nobody's doing.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use super::book::{Book, Claim};
use super::wish::Wish;
use crate::cluster::Cluster;
use crate::wait::Patience;

/// After its disk works again a node that is going to end has ended within this time, and one that is cut off
/// from others by another fault is not waited for any longer.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// Everything that still goes on when faults end: at worst replacements of two nodes with all they hold.
const MENDED_WITHIN: Duration = Duration::from_secs(180);
/// From the end of the last fault until all nodes are ready. Generous: after a power cut they replay much.
const ALL_READY_WITHIN: Duration = Duration::from_secs(90);
/// How much of its log is shown of a node that has ended.
const TAIL_BYTES: u64 = 4 << 10;

/// Ends that the product's documents promise, whoever has caused them: a leader whose disk hangs (a busy
/// machine's may) ends itself if nobody takes over from it.
const PROMISED: [&str; 1] = ["the disk hangs, and nobody has taken leadership over"];

/// Undoes everything and waits until all nodes of the cluster are ready and one leads. To be called when no
/// fault is begun any more and each [`super::Begun`] has been healed: what is left is what goes on by itself.
/// What fails does not keep the rest from being mended; it is told in the end.
pub async fn heal_all(cluster: &Arc<Cluster>) -> Result<()> {
    look_for_ends(cluster);
    cluster.mend_network()?;
    for id in cluster.ids() {
        if cluster.is_isolated().is_ok() {
            cluster.thaw_disk(id)?;
        }
        if cluster.has_movable_clocks().is_ok() {
            cluster.set_clock(id, 0)?;
        }
        if cluster.node(id).process().runs() {
            cluster.resume(id)?;
        }
    }
    let mut failures = Vec::new();
    let mended = tokio::time::timeout(MENDED_WITHIN, mends(&cluster.book, &mut failures)).await;
    if mended.is_err() {
        failures.push(format!("nodes are not mended within {MENDED_WITHIN:?}"));
    }
    look_for_ends(cluster);
    if let Err(error) = make_whole(cluster).await {
        failures.push(format!("{error:#}"));
    }
    ensure!(failures.is_empty(), "{}", failures.join("; "));
    Ok(())
}

/// Waits for everything that goes on by itself, whatever becomes of one part of it.
async fn mends(book: &Book, failures: &mut Vec<String>) {
    // A mend may leave another one behind.
    loop {
        let mut mends = book.take_mends();
        if mends.is_empty() {
            return;
        }
        while let Some(mend) = mends.join_next().await {
            match mend {
                Ok(Ok(())) => {}
                Ok(Err(error)) => failures.push(format!("{error:#}")),
                Err(panic) => failures.push(format!("a mend panicked: {panic}")),
            }
        }
    }
}

/// Starts what has ended and replaces what is damaged, until all nodes are ready and one leads.
async fn make_whole(cluster: &Arc<Cluster>) -> Result<()> {
    for id in cluster.ids() {
        if cluster.is_isolated().is_ok() {
            cluster.make_room(id)?;
        }
        if !cluster.node(id).process().runs() {
            cluster.restart(id)?;
        }
    }
    for id in cluster.book.damaged() {
        let change = cluster.book.change().await;
        Wish::replace(id).fulfil(cluster, &change).await?;
        cluster.book.replaced(id);
    }
    all_ready(cluster).await?;
    cluster.leader().await?;
    Ok(())
}

async fn all_ready(cluster: &Cluster) -> Result<()> {
    let ids = cluster.ids();
    let patience = Patience::new("all nodes are ready", ALL_READY_WITHIN);
    for id in &ids {
        while cluster.node(*id).process().runs() {
            match cluster.is_ready(*id).await {
                Ok(()) => break,
                Err(why) => patience.again(why).await?,
            }
        }
    }
    for id in ids {
        let process = cluster.node(id);
        if let Some(status) = process.process().ended() {
            bail!(
                "node {id} does not stay up, although nothing is broken any more: {status}; its log ends: {}",
                process.process().log_tail(TAIL_BYTES)
            );
        }
    }
    Ok(())
}

/// The nodes that have ended, or had a panic, although nobody had done anything to them, each with the end of
/// its log. Looks at once, and remembers: to be asked now and then during a run, and at its end.
pub fn unexpected_ends(cluster: &Cluster) -> Vec<String> {
    look_for_ends(cluster);
    for (id, node) in cluster.all_known() {
        cluster.book.look_for_panics(id, node.process());
    }
    cluster.book.unexpected()
}

fn look_for_ends(cluster: &Cluster) {
    cluster.ids().into_iter().for_each(|id| look_for_end(cluster, id));
}

/// Writes down that the node has ended, if it has and nobody had meant it to.
pub(super) fn look_for_end(cluster: &Cluster, id: u64) {
    let Some(node) = cluster.find(id) else { return };
    let Some(status) = node.process().ended() else { return };
    cluster.book.ended(id, || {
        let log = node.process().log_tail(TAIL_BYTES);
        // Between the two looks somebody may have started it again.
        let gone = node.process().ended().is_some() && !PROMISED.iter().any(|said| log.contains(said));
        gone.then(|| format!("node {id} ended by itself ({status}); its log ends: {log}"))
    });
}

/// Starts the ended nodes of the claim, whose ends are meant, until they are ready or time is up, and lets go
/// of them.
pub(super) async fn until_ready(cluster: Arc<Cluster>, claim: Claim) -> Result<()> {
    for id in claim.ids() {
        // That others are broken meanwhile and it cannot become ready is no error; that it does not start is one,
        // which is seen when everything is healed.
        let patience = Patience::new("the node is ready", READY_WITHIN);
        loop {
            if cluster.node(*id).process().ended().is_some() {
                cluster.restart(*id)?;
            }
            match cluster.is_ready(*id).await {
                Err(why) if patience.again(&why).await.is_ok() => {}
                _ => break,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {

    use super::*;

    #[tokio::test]
    async fn a_mend_that_fails_does_not_end_the_others() {
        let book = Book::default();
        let (finished, mut seen) = tokio::sync::mpsc::unbounded_channel();
        let (failed, has_failed) = tokio::sync::oneshot::channel();
        let failing = async move {
            failed.send(()).expect("the other one waits");
            anyhow::bail!("no node can be had")
        };
        let following = book.clone();
        let other = async move {
            has_failed.await?;
            // Taken in a later turn, when the first mend has been told to have failed.
            following.mend(async move { Ok(finished.send("done")?) });
            Ok(())
        };
        book.mend(failing);
        book.mend(other);
        let mut failures = Vec::new();
        mends(&book, &mut failures).await;
        assert_eq!(failures, ["no node can be had"]);
        assert_eq!(seen.recv().await, Some("done"));
    }
}
