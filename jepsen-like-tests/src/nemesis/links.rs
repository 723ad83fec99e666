//! Links that are bad without being cut: slow ones, ones that change bytes, ones that break.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use futures::FutureExt;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{Begun, Fault, pick};
use crate::cluster::{Cluster, Weather};

/// Bad weather comes in one kind at a time.
const WEATHER: &str = "weather";

/// Delays that are random for each piece and each connection: what is sent on two connections arrives in
/// another order, and 64 KiB at a time make a link with a bandwidth.
pub(super) struct SlowNetwork;

#[async_trait]
impl Fault for SlowNetwork {
    fn kind(&self) -> &'static str {
        "slow-network"
    }

    fn about(&self) -> &'static str {
        "all links, or those of some nodes, are late by up to 200 ms, and connections overtake each other"
    }

    fn permitted(&self, cluster: &Cluster) -> Result<(), String> {
        cluster.has_breakable_links()
    }

    async fn begin(&self, cluster: &Arc<Cluster>, dice: &mut ChaCha8Rng) -> Result<Option<Begun>> {
        let most = dice.random_range(10..=200);
        let weather = Weather {
            delay: Duration::from_millis(most / 4)..Duration::from_millis(most),
            ..Weather::default()
        };
        bad_weather(cluster, dice, &weather, &format!("up to {most} ms late")).await
    }
}

/// The checksums of TCP do not find everything, and a switch may change a packet and sum it up anew.
pub(super) struct CorruptBytes;

#[async_trait]
impl Fault for CorruptBytes {
    fn kind(&self) -> &'static str {
        "corrupt-bytes"
    }

    fn about(&self) -> &'static str {
        "single bits arrive wrong on all links, or on those of some nodes"
    }

    fn permitted(&self, cluster: &Cluster) -> Result<(), String> {
        cluster.has_breakable_links()
    }

    async fn begin(&self, cluster: &Arc<Cluster>, dice: &mut ChaCha8Rng) -> Result<Option<Begun>> {
        let pieces = dice.random_range(5..=200);
        let weather = Weather {
            corrupt: 1.0 / f64::from(pieces),
            ..Weather::default()
        };
        bad_weather(cluster, dice, &weather, &format!("one piece of {pieces}")).await
    }
}

async fn bad_weather(
    cluster: &Arc<Cluster>,
    dice: &mut ChaCha8Rng,
    weather: &Weather,
    how: &str,
) -> Result<Option<Begun>> {
    let Some(only) = cluster.book.only(WEATHER) else {
        return Ok(None);
    };
    let victims = pick::all_or_some(cluster, dice, "all nodes").await;
    for (from, to) in links_of(cluster, &victims.ids) {
        cluster.network().set_weather(from, to, weather.clone());
    }
    let cluster = cluster.clone();
    Ok(Some(Begun {
        what: format!("the links of {}: {how}", victims.what),
        nodes: victims.ids,
        lasts: pick::between(dice, 1000, 5000),
        heal: async move {
            cluster.network().clear_up();
            drop(only);
            Ok(())
        }
        .boxed(),
    }))
}

/// From whom to whom: each link that begins or ends at one of these nodes.
fn links_of(cluster: &Cluster, nodes: &[u64]) -> Vec<(u64, u64)> {
    let ids = cluster.ids();
    let all = ids.iter().flat_map(|from| ids.iter().map(|to| (*from, *to)));
    all.filter(|(from, to)| from != to && (nodes.contains(from) || nodes.contains(to)))
        .collect()
}

pub(super) struct ResetConnections;

#[async_trait]
impl Fault for ResetConnections {
    fn kind(&self) -> &'static str {
        "reset-connections"
    }

    fn about(&self) -> &'static str {
        "connections between nodes break, at both ends and in the middle of whatever they carry"
    }

    fn permitted(&self, cluster: &Cluster) -> Result<(), String> {
        cluster.has_breakable_links()
    }

    async fn begin(&self, cluster: &Arc<Cluster>, dice: &mut ChaCha8Rng) -> Result<Option<Begun>> {
        let victims = pick::all_or_some(cluster, dice, "all nodes").await;
        for (from, to) in links_of(cluster, &victims.ids) {
            cluster.network().reset(from, to);
        }
        Ok(Some(Begun::over(format!("those of {}", victims.what), victims.ids)))
    }
}
