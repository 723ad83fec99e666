//! The membership changes while other things are broken: a node comes, a node goes, one takes the place of
//! another. In the end there are as many as before.

use std::sync::Arc;

use anyhow::Result;
use async_trait::async_trait;
use futures::FutureExt;
use rand::RngExt;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::book::Ends;
use super::wish::Wish;
use super::{Begun, Fault, pick};
use crate::cluster::Cluster;

pub(super) struct Membership;

#[derive(Debug, Clone, Copy)]
enum How {
    /// First another node, then without this one.
    AddThenRemove,
    RemoveThenAdd,
    Replace,
}

#[async_trait]
impl Fault for Membership {
    fn kind(&self) -> &'static str {
        "membership"
    }

    fn about(&self) -> &'static str {
        "a node is added and one removed, in either order, or one replaced in one change"
    }

    fn permitted(&self, cluster: &Cluster) -> Result<(), String> {
        match cluster.ids().len() >= 3 {
            true => Ok(()),
            false => Err("fewer than three nodes cannot do without one".to_owned()),
        }
    }

    async fn begin(&self, cluster: &Arc<Cluster>, dice: &mut ChaCha8Rng) -> Result<Option<Begun>> {
        let Some(change) = cluster.book.try_change() else {
            return Ok(None);
        };
        // It ends by itself when it is no member any more.
        let Some((victim, claim)) = pick::claim_one(cluster, dice, Ends::AreMeant).await else {
            return Ok(None);
        };
        let old = victim.id;
        let how = *[How::AddThenRemove, How::RemoveThenAdd, How::Replace]
            .choose(dice)
            .unwrap_or(&How::Replace);
        let dead = matches!(how, How::Replace) && dice.random_bool(0.5);
        if dead {
            cluster.end(&[old]).await?;
        }
        let changed = cluster.clone();
        cluster.book.mend(async move {
            let steps: &[Wish] = match how {
                How::AddThenRemove => &[Wish::add(), Wish::remove(old)],
                How::RemoveThenAdd => &[Wish::remove(old), Wish::add()],
                How::Replace => &[Wish::replace(old)],
            };
            // One right for all of it: in between the cluster is of another size than it should be.
            for wish in steps {
                wish.fulfil(&changed, &change).await?;
            }
            drop((change, claim));
            Ok(())
        });
        Ok(Some(Begun {
            what: match how {
                How::AddThenRemove => format!("a new node comes, then goes {}", victim.what),
                How::RemoveThenAdd => format!("{} goes, then a new node comes", victim.what),
                How::Replace if dead => format!("a new node for {}, which is dead", victim.what),
                How::Replace => format!("a new node for {}, which lives", victim.what),
            },
            nodes: vec![old],
            // It goes on by itself, and the next one waits for it.
            lasts: pick::between(dice, 1000, 3000),
            heal: async { Ok(()) }.boxed(),
        }))
    }
}
