//! A stopped node's files are changed behind its back: a bit is flipped, or the end of a file is missing.
//! The node then comes back whole, refuses to start, or ends when it meets the damage; it must not serve what
//! is wrong. In each case a new node takes its place, so that at any time only a minority of disks is damaged.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use futures::FutureExt;
use rand::RngExt;
use rand::seq::{IndexedRandom, IteratorRandom};
use rand_chacha::ChaCha8Rng;

use super::book::{Claim, Ends};
use super::heal::until_ready;
use super::wish::Wish;
use super::{Begun, Fault, pick};
use crate::cluster::Cluster;
use crate::http::Call;

/// What states are compared in, if the cluster can compare them just then.
const COMPARED_WITHIN: Duration = Duration::from_secs(10);
/// Bits flipped in one file at most.
const FLIPS_MAX: usize = 8;

pub(super) struct BitFlip;
pub(super) struct Truncate;

#[async_trait]
impl Fault for BitFlip {
    fn kind(&self) -> &'static str {
        "bit-flip"
    }

    fn about(&self) -> &'static str {
        "bits flip in a file of a stopped node: log, table, mark or snapshot; later the node is replaced"
    }

    fn permitted(&self, cluster: &Cluster) -> Result<(), String> {
        replaceable(cluster)
    }

    async fn begin(&self, cluster: &Arc<Cluster>, dice: &mut ChaCha8Rng) -> Result<Option<Begun>> {
        begin(cluster, dice, flip).await
    }
}

#[async_trait]
impl Fault for Truncate {
    fn kind(&self) -> &'static str {
        "truncate"
    }

    fn about(&self) -> &'static str {
        "a file of a stopped node loses its end: log, table, mark or snapshot; later the node is replaced"
    }

    fn permitted(&self, cluster: &Cluster) -> Result<(), String> {
        replaceable(cluster)
    }

    async fn begin(&self, cluster: &Arc<Cluster>, dice: &mut ChaCha8Rng) -> Result<Option<Begun>> {
        begin(cluster, dice, cut).await
    }
}

fn replaceable(cluster: &Cluster) -> Result<(), String> {
    match cluster.ids().len() >= 3 {
        true => Ok(()),
        false => Err("without a third node a damaged one cannot be replaced".to_owned()),
    }
}

type Damage = fn(&Path, &mut ChaCha8Rng) -> Result<String>;

async fn begin(cluster: &Arc<Cluster>, dice: &mut ChaCha8Rng, damage: Damage) -> Result<Option<Begun>> {
    let Some((victim, claim)) = pick::claim_one(cluster, dice, Ends::AreMeant).await else {
        return Ok(None);
    };
    let id = victim.id;
    if !cluster.book.damage(id, cluster.ids().len()) {
        return Ok(None);
    }
    cluster.end(&[id]).await?;
    let node = cluster.node(id);
    let found = files(node.data());
    let classes: BTreeSet<String> = found.iter().map(|file| class(file)).collect();
    let class_hit = classes.into_iter().choose(dice);
    let hit: Vec<&PathBuf> = found.iter().filter(|file| Some(class(file)) == class_hit).collect();
    let Some(file) = hit.choose(dice) else {
        // Nothing to damage: all it had is as it was.
        cluster.book.replaced(id);
        cluster.restart(id)?;
        cluster.book.mend(until_ready(cluster.clone(), claim));
        return Ok(None);
    };
    let within = file.strip_prefix(node.data())?.display().to_string();
    let done = format!("{within}: {}", damage(file, dice)?);
    cluster.restart(id)?;
    let cluster = cluster.clone();
    Ok(Some(Begun {
        what: format!("{}: {done}", victim.what),
        nodes: vec![id],
        lasts: pick::between(dice, 2000, 6000),
        heal: async move {
            let mended = cluster.clone();
            cluster.book.mend(replace(mended, claim, done));
            Ok(())
        }
        .boxed(),
    }))
}

/// Judges what the node made of the damage, and puts another one in its place.
async fn replace(cluster: Arc<Cluster>, claim: Claim, done: String) -> Result<()> {
    let id = claim.ids()[0];
    // Written down before anything else can fail.
    if let Some(wrong) = shows_wrong_state(&cluster, id).await {
        let told = format!("node {id} serves damaged data ({done}): {wrong}");
        cluster.book.serves_damage(told);
    }
    let change = cluster.book.change().await;
    if cluster.node(id).process().runs() {
        cluster.end(&[id]).await?;
    }
    Wish::replace(id).fulfil(&cluster, &change).await?;
    cluster.book.replaced(id);
    drop(claim);
    Ok(())
}

/// None: its state is that of the others, or it knows better than to show it, or nobody can tell just now.
async fn shows_wrong_state(cluster: &Cluster, id: u64) -> Option<String> {
    let via = cluster.leader_now().await?;
    let answer = cluster
        .try_send(via, Call::get("/v1/cluster/verify"), COMPARED_WITHIN)
        .await?;
    let compared = answer.json().ok()?;
    let nodes = compared["nodes"].as_array()?;
    let own = nodes.iter().find(|node| node["id"] == id)?;
    (own["differs"] == true).then(|| compared.to_string())
}

/// The files of a data directory that hold something that matters. Left out is what nobody reads (locks,
/// RocksDB's own diary and its options) and what is thrown away at each start.
fn files(data: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![data.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && path != data.join("tmp") {
                folders.push(path);
                continue;
            }
            let read = [".log", ".sst", ".mark"].iter().any(|end| name.ends_with(end)) || name == "POINTER";
            if read && fs::metadata(&path).is_ok_and(|file| file.len() > 0) {
                found.push(path);
            }
        }
    }
    // What a directory lists first is chance, which would not be that of the dice.
    found.sort();
    found
}

/// Files of one sort in one place, for example `log/*.sst`: each class is hit as often, however many files it has.
fn class(file: &Path) -> String {
    let folder = file.parent().unwrap_or(Path::new("")).display();
    format!("{folder}/{}", file.extension().unwrap_or_default().to_string_lossy())
}

fn flip(file: &Path, dice: &mut ChaCha8Rng) -> Result<String> {
    let open = File::options().read(true).write(true).open(file)?;
    let length = open.metadata()?.len();
    let flips = dice.random_range(1..=FLIPS_MAX);
    for _ in 0..flips {
        let at = dice.random_range(0..length);
        let mut byte = [0];
        open.read_exact_at(&mut byte, at)?;
        byte[0] ^= 1 << dice.random_range(0..8);
        open.write_all_at(&byte, at)?;
    }
    open.sync_all()?;
    Ok(format!("{flips} bits of {length} bytes flipped"))
}

fn cut(file: &Path, dice: &mut ChaCha8Rng) -> Result<String> {
    let open = File::options().write(true).open(file)?;
    let length = open.metadata()?.len();
    // As often the last piece as anything: it is what a torn write loses.
    let left = match dice.random_bool(0.5) {
        true => length - dice.random_range(1..=length.min(4096)),
        false => dice.random_range(0..length),
    };
    open.set_len(left)?;
    open.sync_all().context("failed to sync what was cut")?;
    Ok(format!("cut from {length} to {left} bytes"))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn files_that_matter_are_found_and_damaged() {
        let data = tempfile::tempdir().expect("a temporary folder can be made");
        for folder in ["log", "tmp"] {
            fs::create_dir(data.path().join(folder)).expect("it is empty");
        }
        for name in ["log/000004.log", "log/LOG", "log/LOCK", "tmp/000001.sst", "log.mark"] {
            fs::write(data.path().join(name), vec![0; 10_000]).expect("there is room");
        }
        let found = files(data.path());
        assert_eq!(
            found,
            [data.path().join("log/000004.log"), data.path().join("log.mark")]
        );
        let mut dice = ChaCha8Rng::seed_from_u64(3);
        flip(&found[0], &mut dice).expect("it can be written");
        let flipped = fs::read(&found[0]).expect("it can be read");
        let bits: u32 = flipped.iter().map(|byte| byte.count_ones()).sum();
        assert!((1..=8).contains(&bits) && flipped.len() == 10_000, "{bits}");
        cut(&found[1], &mut dice).expect("it can be written");
        assert!(fs::metadata(&found[1]).expect("it is there").len() < 10_000);
    }
}
