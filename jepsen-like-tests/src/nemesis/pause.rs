//! Processes stand still, as on a machine that is moved or out of memory: their sockets stay open, and when
//! they go on they do not know how late it is.

use std::sync::Arc;

use anyhow::Result;
use futures::FutureExt;
use futures::future::BoxFuture;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::book::Ends;
use super::{Begun, Fault, pick};
use crate::cluster::Cluster;

pub(super) struct Pause;

impl Fault for Pause {
    fn kind(&self) -> &'static str {
        "pause"
    }

    fn about(&self) -> &'static str {
        "SIGSTOP for longer than an election takes, and often longer than a lock of 2 s lives"
    }

    fn permitted(&self, _: &Cluster) -> Result<(), String> {
        Ok(())
    }

    fn begin<'a>(
        &'a self,
        cluster: &'a Arc<Cluster>,
        dice: &'a mut ChaCha8Rng,
    ) -> BoxFuture<'a, Result<Option<Begun>>> {
        async move {
            let Some(victims) = pick::some(cluster, &pick::free(cluster, dice), dice).await else {
                return Ok(None);
            };
            let Some(claim) = cluster.book.claim(&victims.ids, Ends::AreDefects) else {
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
        .boxed()
    }
}
