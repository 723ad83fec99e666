//! Processes stand still, as on a machine that is moved or out of memory: their sockets stay open, and when
//! they go on they do not know how late it is.

use std::sync::Arc;

use anyhow::Result;
use async_trait::async_trait;
use futures::FutureExt;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::book::Ends;
use super::{Begun, Fault, pick};
use crate::cluster::Cluster;

pub(super) struct Pause;

#[async_trait]
impl Fault for Pause {
    fn kind(&self) -> &'static str {
        "pause"
    }

    fn about(&self) -> &'static str {
        "SIGSTOP for longer than an election takes, and often longer than a lock of 2 s lives"
    }

    async fn begin(&self, cluster: &Arc<Cluster>, dice: &mut ChaCha8Rng) -> Result<Option<Begun>> {
        let Some((victims, claim)) = pick::claim_some(cluster, dice, Ends::AreDefects).await else {
            return Ok(None);
        };
        for (at, id) in victims.ids.iter().enumerate() {
            let Err(error) = cluster.pause(*id) else { continue };
            // Nobody else would let those before it go on.
            for paused in &victims.ids[..at] {
                cluster.resume(*paused)?;
            }
            return Err(error);
        }
        let cluster = cluster.clone();
        Ok(Some(Begun {
            what: victims.what,
            nodes: victims.ids,
            lasts: match dice.random_bool(0.4) {
                true => pick::between(dice, 2500, 4500),
                false => pick::between(dice, 700, 2000),
            },
            heal: async move {
                let running = claim.ids().iter().filter(|id| cluster.node(**id).process().runs());
                running.into_iter().try_for_each(|id| cluster.resume(*id))
            }
            .boxed(),
        }))
    }
}
