//! Wall clocks that jump, forward and back, while the monotonic clocks go on. Nothing may expire by that.

use std::sync::Arc;

use anyhow::Result;
use async_trait::async_trait;
use futures::FutureExt;
use rand::RngExt;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::{Begun, Fault, pick};
use crate::cluster::Cluster;

/// How far, in seconds: some of a second's length, of a lock's, of a session's, and beyond what is
/// remembered of keys.
const JUMPS_S: [i64; 5] = [1, 30, 5 * 60, 3 * 3600, 26 * 3600];

pub(super) struct ClockJump;

#[async_trait]
impl Fault for ClockJump {
    fn kind(&self) -> &'static str {
        "clock-jump"
    }

    fn about(&self) -> &'static str {
        "the wall clocks of some nodes jump by a second to a day, forward or back, and later back"
    }

    fn permitted(&self, cluster: &Cluster) -> Result<(), String> {
        cluster.has_movable_clocks()
    }

    async fn begin(&self, cluster: &Arc<Cluster>, dice: &mut ChaCha8Rng) -> Result<Option<Begun>> {
        let Some(only) = cluster.book.only(self.kind()) else {
            return Ok(None);
        };
        let leader = cluster.leader_now().await;
        let mut ids = cluster.ids();
        ids.shuffle(dice);
        ids.truncate(dice.random_range(1..=ids.len()));
        let mut jumps = Vec::new();
        for id in &ids {
            let far = JUMPS_S.choose(dice).copied().unwrap_or(1);
            let offset_s = if dice.random_bool(0.5) { far } else { -far };
            cluster.set_clock(*id, offset_s)?;
            jumps.push(format!("{} by {offset_s:+} s", pick::told(&[*id], leader)));
        }
        let (cluster, nodes) = (cluster.clone(), ids.clone());
        Ok(Some(Begun {
            what: jumps.join(", "),
            nodes,
            lasts: pick::between(dice, 1000, 6000),
            heal: async move {
                let back = ids.iter().try_for_each(|id| cluster.set_clock(*id, 0));
                drop(only);
                back
            }
            .boxed(),
        }))
    }
}
