//! Links that are bad without being cut: slow ones, ones that change bytes, ones that break.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use futures::FutureExt;
use futures::future::BoxFuture;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{Begun, Fault, pick};
use crate::cluster::{Cluster, Weather};

/// Bad weather comes in one kind at a time.
const WEATHER: &str = "weather";

/// Delays that are random for each piece and each connection: what is sent on two connections arrives in
/// another order, and 64 KiB at a time make a link with a bandwidth.
pub(super) struct SlowNetwork;

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

    fn begin<'a>(
        &'a self,
        cluster: &'a Arc<Cluster>,
        dice: &'a mut ChaCha8Rng,
    ) -> BoxFuture<'a, Result<Option<Begun>>> {
        async move {
            let most = dice.random_range(10..=200);
            let weather = Weather {
                delay: Duration::from_millis(most / 4)..Duration::from_millis(most),
                ..Weather::default()
            };
            bad_weather(cluster, dice, &weather, &format!("up to {most} ms late")).await
        }
        .boxed()
    }
}

/// The checksums of TCP do not find everything, and a switch may change a packet and sum it up anew.
pub(super) struct CorruptBytes;

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

    fn begin<'a>(
        &'a self,
        cluster: &'a Arc<Cluster>,
        dice: &'a mut ChaCha8Rng,
    ) -> BoxFuture<'a, Result<Option<Begun>>> {
        async move {
            let pieces = dice.random_range(5..=200);
            let weather = Weather {
                corrupt: 1.0 / f64::from(pieces),
                ..Weather::default()
            };
            bad_weather(cluster, dice, &weather, &format!("one piece of {pieces}")).await
        }
        .boxed()
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
    let ids = cluster.ids();
    let everywhere = dice.random_bool(0.5);
    let victims = match everywhere {
        true => None,
        false => pick::some(cluster, &ids, dice).await,
    };
    let nodes = victims.as_ref().map_or(ids.clone(), |victims| victims.ids.clone());
    for from in &ids {
        for to in ids.iter().filter(|to| *to != from) {
            if nodes.contains(from) || nodes.contains(to) {
                cluster.network().set_weather(*from, *to, weather.clone());
            }
        }
    }
    let whose = victims.map_or("all links".to_owned(), |victims| {
        format!("the links of {}", victims.what)
    });
    let cluster = cluster.clone();
    Ok(Some(Begun {
        what: format!("{whose}: {how}"),
        nodes,
        lasts: pick::between(dice, 1000, 5000),
        heal: async move {
            cluster.network().clear_up();
            drop(only);
            Ok(())
        }
        .boxed(),
    }))
}

pub(super) struct ResetConnections;

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

    fn begin<'a>(
        &'a self,
        cluster: &'a Arc<Cluster>,
        dice: &'a mut ChaCha8Rng,
    ) -> BoxFuture<'a, Result<Option<Begun>>> {
        async move {
            let ids = cluster.ids();
            let victims = pick::some(cluster, &ids, dice).await;
            let nodes = victims.as_ref().map_or(ids.clone(), |victims| victims.ids.clone());
            for from in &ids {
                for to in ids.iter().filter(|to| *to != from) {
                    if nodes.contains(from) || nodes.contains(to) {
                        cluster.network().reset(*from, *to);
                    }
                }
            }
            Ok(Some(Begun {
                what: victims.map_or("all connections".to_owned(), |victims| {
                    format!("those of {}", victims.what)
                }),
                nodes,
                lasts: Duration::ZERO,
                heal: async { Ok(()) }.boxed(),
            }))
        }
        .boxed()
    }
}
