//! One node's files are damaged while it is stopped, each kind in each way: it says what it found and
//! stays out, or it comes back whole; the others serve all through, and nothing is lost.
//!
//! After a node has stayed out, the damage is undone by putting back what the file held: only because it
//! ended before it took part in anything is its directory still what the cluster counts on. A node that
//! took part and then found damage is replaced, as an operator would.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use quorate_torture::cluster::{Cluster, Newcomer};
use quorate_torture::http::Call;
use quorate_torture::load::Load;
use quorate_torture::wait::eventually;
use quorate_torture::workload::{Chat, fill};

use crate::{CLUSTER_VERSION, SOON};

/// The log of a node is short, so that its state cannot be made from it again.
const LOG_ARGS: [&str; 2] = ["--log-bytes-max", "1048576"];
const ARCHIVE_BYTES: u64 = 3 << 20;

/// What of RocksDB's log is damaged: behind a header of 7 bytes, in the first write of the file. A middle byte may
/// lie in the last one, which a node that was killed had not confirmed to anyone, so that it may do without.
const IN_THE_FIRST_WRITE: usize = 20;
/// So many writes are in the file, seen by its growth. The node marks each as confirmed before it begins the next,
/// and few of them have no entries.
const WRITES: usize = 6;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Damage {
    Flip,
    Cut,
    Delete,
}

const DAMAGES: [Damage; 3] = [Damage::Flip, Damage::Cut, Damage::Delete];

#[derive(Debug, PartialEq)]
enum Outcome {
    /// It ended without having taken part in anything.
    StaysOut,
    /// It took part, then found the damage, and ended or told of it when states were compared.
    FoundLater,
    Whole,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_to_the_log_and_to_the_identity_is_found() {
    let mut victim = Victim::begin().await;
    let outcomes = victim.damage_each(|kind| !kind.starts_with("state")).await;
    // Without these the node cannot know what it has promised.
    for (kind, damage) in [
        ("IDENTITY", Damage::Flip),
        ("IDENTITY", Damage::Cut),
        ("IDENTITY", Damage::Delete),
        ("log/CURRENT", Damage::Delete),
        ("log/MANIFEST-*", Damage::Delete),
        ("log/*.log", Damage::Flip),
        ("log/*.log", Damage::Cut),
        ("log/*.log", Damage::Delete),
        ("log/*.sst", Damage::Cut),
        ("log/*.sst", Damage::Delete),
        ("log", Damage::Delete),
    ] {
        let outcome = outcomes.get(&(kind.to_owned(), damage as u8));
        assert_eq!(outcome, Some(&Outcome::StaysOut), "{kind}, {damage:?}");
    }
    victim.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_to_the_state_is_found() {
    let mut victim = Victim::begin().await;
    let outcomes = victim.damage_each(|kind| kind.starts_with("state")).await;
    for damage in [Damage::Flip, Damage::Cut] {
        let outcome = outcomes.get(&("state/POINTER".to_owned(), damage as u8));
        assert_eq!(outcome, Some(&Outcome::StaysOut), "{damage:?}");
    }
    victim.end().await;
}

/// A cluster at work, and the node of it that has bad luck.
struct Victim {
    cluster: Arc<Cluster>,
    chat: Arc<Chat>,
    load: Load,
    id: u64,
    /// Its directory as it was when it was stopped last.
    good: PathBuf,
    replaced: bool,
}

impl Victim {
    async fn begin() -> Self {
        let cluster = Arc::new(Cluster::options().serve_args(&LOG_ARGS).start().await.unwrap());
        cluster.wait_version(CLUSTER_VERSION).await.unwrap();
        let chat = Chat::begin(cluster.clone(), &["hall"]).await.unwrap();
        for room in ["archive", "side"] {
            cluster.create_room(1, room).await.unwrap();
        }
        fill(&cluster, 1, "archive", ARCHIVE_BYTES, 3).await.unwrap();
        let id = cluster.others(cluster.leader().await.unwrap())[0];
        let load = Load::start(&chat, &cluster.others(id), 1, 1);
        chat.wait_acknowledged(200, SOON).await.unwrap();
        for id in cluster.ids() {
            cluster.take_snapshot(id).await.unwrap();
        }
        let good = cluster.folder().join("good");
        let victim = Self {
            cluster,
            chat,
            load,
            id,
            good,
            replaced: false,
        };
        victim.fresh().await;
        victim
    }

    fn dir(&self) -> PathBuf {
        self.cluster.node(self.id).data().to_owned()
    }

    /// Stops the node, so that it has all kinds of files: what it wrote before is in tables since it was
    /// opened, what it has written since is in the log's log of RocksDB. Keeps a copy.
    async fn fresh(&self) {
        if self.cluster.node(self.id).process().runs() {
            self.cluster.kill(self.id).await.unwrap();
        }
        self.cluster.restart(self.id).unwrap();
        self.cluster.wait_ready(&[self.id]).await.unwrap();
        let position = self
            .cluster
            .wait_writable(self.cluster.others(self.id)[0], "side")
            .await
            .unwrap();
        let there = Call::get("/v1/rooms/side?level=local")
            .min_position(&position)
            .timeout(SOON);
        self.cluster.expect(self.id, there, 200).await.unwrap();
        // What a node has applied it need not have on its disk yet.
        let mut seen = BTreeSet::new();
        eventually("the log was written several times", SOON, async || {
            let newest = newest_log(&self.dir().join("log")).ok_or("it has no file")?;
            seen.retain(|(path, _)| *path == newest.0);
            seen.insert(newest);
            match seen.len() >= WRITES {
                true => Ok(()),
                false => Err(format!("{seen:?}")),
            }
        })
        .await
        .unwrap();
        self.cluster.kill(self.id).await.unwrap();
        copy_tree(&self.dir(), &self.good);
    }

    async fn damage_each(&mut self, wanted: impl Fn(&str) -> bool) -> BTreeMap<(String, u8), Outcome> {
        let mut outcomes = BTreeMap::new();
        let mut cases: Vec<(String, Damage)> = Vec::new();
        for kind in kinds(&self.good).into_keys().filter(|kind| wanted(kind)) {
            cases.extend(DAMAGES.map(|damage| (kind.clone(), damage)));
        }
        // Whole directories can go as well.
        cases.extend(
            ["log", "state"]
                .into_iter()
                .filter(|kind| wanted(kind))
                .map(|kind| (kind.to_owned(), Damage::Delete)),
        );
        assert!(cases.len() >= 15, "kinds of files are missing: {cases:?}");
        for (kind, damage) in cases {
            let outcome = self.damage(&kind, damage).await;
            println!("{kind}, {damage:?}: {outcome:?}");
            self.chat.wait_acknowledged(5, SOON).await.unwrap();
            outcomes.insert((kind, damage as u8), outcome);
        }
        outcomes
    }

    async fn damage(&mut self, kind: &str, damage: Damage) -> Outcome {
        let place = kinds(&self.dir())
            .get(kind)
            .cloned()
            .unwrap_or_else(|| self.dir().join(kind));
        self.chat.history.fault(&format!("{damage:?} {kind}"), Some(self.id));
        apply(damage, &place);
        let node = self.cluster.node(self.id);
        let before = node.process().log_bytes();
        self.cluster.restart(self.id).unwrap();
        let ready = eventually("the node is ready or has ended", Duration::from_secs(30), async || {
            if node.process().ended().is_some() {
                return Ok(false);
            }
            match self.cluster.send(self.id, Call::get("/readyz")).await {
                Ok(answer) if answer.status == 200 => Ok(true),
                Ok(answer) => Err(answer.to_string()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await
        .unwrap_or_else(|error| panic!("{kind}, {damage:?}: {error:#}"));
        // Everything is read for its hash, so damage that was not met yet is met now.
        let told = match ready {
            true => self.tells_of_its_state().await,
            false => None,
        };
        if ready && told.is_none() {
            self.fresh().await;
            return Outcome::Whole;
        }
        if node.process().runs() {
            self.cluster.kill(self.id).await.unwrap();
        }
        let ended = node.process().ended();
        assert!(
            !ended.is_some_and(|status| status.success()),
            "{kind}, {damage:?}: {ended:?}"
        );
        let said = node.process().log_since(before) + &told.unwrap_or_default();
        assert!(
            says_what_it_found(&said),
            "{kind}, {damage:?}: it does not say what it found: {said}"
        );
        if said.contains("node started") {
            self.replace().await;
            return Outcome::FoundLater;
        }
        fs::remove_dir_all(self.dir()).unwrap();
        copy_tree(&self.good, &self.dir());
        Outcome::StaysOut
    }

    /// Has all states compared. None: the node's is that of the others; else why it has no hash, or
    /// nothing if it ended.
    async fn tells_of_its_state(&self) -> Option<String> {
        let node = self.cluster.node(self.id);
        let via = self.cluster.others(self.id)[0];
        eventually("the states are compared", SOON, async || {
            let compared = self.cluster.compare(via).await.map_err(|error| format!("{error:#}"))?;
            let nodes = compared["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
            let own = nodes.iter().find(|node| node["id"] == self.id);
            let own = own.ok_or_else(|| compared.to_string())?;
            assert_ne!(own["differs"], true, "wrong, and it does not know: {compared}");
            match own["error"].as_str() {
                None if compared["agree"] == true => Ok(None),
                Some(error) if says_what_it_found(error) => Ok(Some(error.to_owned())),
                _ if node.process().ended().is_some() => Ok(Some(String::new())),
                _ => Err(compared.to_string()),
            }
        })
        .await
        .unwrap()
    }

    /// As docs/OPERATIONS.md has it.
    async fn replace(&mut self) {
        let new = self.cluster.ids().into_iter().max().unwrap() + 1;
        self.chat.history.fault("replace", Some(self.id));
        let newcomer = Newcomer::new(new).at_addresses_of(self.id);
        self.cluster.replace(self.id, &newcomer).await.unwrap();
        self.id = new;
        self.replaced = true;
        self.fresh().await;
    }

    async fn end(mut self) {
        if !self.replaced {
            apply(Damage::Delete, &self.dir().join("log"));
            self.replace().await;
        }
        self.cluster.restart(self.id).unwrap();
        self.cluster.wait_all_ready().await.unwrap();
        self.load.stop().await.unwrap();
        let verdict = self.chat.judge().await.unwrap();
        assert!(verdict.acknowledged >= 250, "too little happened: {verdict}");
    }
}

/// Whoever reads the last lines must learn that it is about the disk, not about a defect.
fn says_what_it_found(log: &str) -> bool {
    let log = log.to_lowercase();
    ["damaged", "corrupt", "has lost", "no identity file"]
        .iter()
        .any(|word| log.contains(word))
}

/// The files of a directory by kind, the largest of each; numbers in names count for nothing. Of RocksDB's
/// logs it is the newest with something in it: an older one may lie there although all of it is in tables.
/// Left out is what nobody reads: locks, RocksDB's own diary and its identity.
fn kinds(dir: &Path) -> BTreeMap<String, PathBuf> {
    let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let within = path.strip_prefix(dir).unwrap().to_str().unwrap();
            // What is below tmp/ is thrown away at each start.
            if within == "tmp" {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let kind = kind_of(within);
            let name = path.file_name().unwrap().to_str().unwrap();
            let unread = name == "LOCK" || name.starts_with("LOG") || (name == "IDENTITY" && within != "IDENTITY");
            let bytes = fs::metadata(&path).unwrap().len();
            let better = |other: &PathBuf| match name.ends_with(".log") {
                true => path > *other,
                false => bytes > fs::metadata(other).unwrap().len(),
            };
            if !unread && bytes > 0 && found.get(&kind).is_none_or(better) {
                found.insert(kind, path);
            }
        }
    }
    found
}

/// `log/000012.sst` is of the kind `log/*.sst`.
fn kind_of(path: &str) -> String {
    let mut kind = String::new();
    for piece in path.split_inclusive(|c: char| !c.is_ascii_digit()) {
        let digits = piece.bytes().take_while(u8::is_ascii_digit).count();
        if digits > 0 {
            kind.push('*');
        }
        kind.push_str(&piece[digits..]);
    }
    kind
}

/// The newest file of RocksDB's log with something in it, and its length. The node may be running.
fn newest_log(dir: &Path) -> Option<(PathBuf, u64)> {
    let paths = fs::read_dir(dir).ok()?.map(|entry| entry.unwrap().path());
    let logs = paths.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    let lengths = logs.filter_map(|path| Some((fs::metadata(&path).ok()?.len(), path)));
    lengths
        .filter(|(length, _)| *length > 0)
        .map(|(length, path)| (path, length))
        .max()
}

fn apply(damage: Damage, place: &Path) {
    let at = |length: usize| match place.extension().is_some_and(|extension| extension == "log") {
        true => IN_THE_FIRST_WRITE.min(length / 2),
        false => length / 2,
    };
    match damage {
        Damage::Flip => {
            let mut bytes = fs::read(place).unwrap();
            assert!(!bytes.is_empty(), "{} is empty", place.display());
            let at = at(bytes.len());
            bytes[at] ^= 4;
            fs::write(place, bytes).unwrap();
        }
        Damage::Cut => {
            let file = File::options().write(true).open(place).unwrap();
            let length = fs::metadata(place).unwrap().len() as usize;
            file.set_len(at(length) as u64).unwrap();
        }
        Damage::Delete if place.is_dir() => fs::remove_dir_all(place).unwrap(),
        Damage::Delete => fs::remove_file(place).unwrap(),
    }
}

/// Makes `to` hold what `from` holds, and nothing else.
fn copy_tree(from: &Path, to: &Path) {
    if to.exists() {
        fs::remove_dir_all(to).unwrap();
    }
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn kinds_of_files_have_no_numbers() {
    assert_eq!(kind_of("log/000012.sst"), "log/*.sst");
    assert_eq!(kind_of("state/gen-12/MANIFEST-000005"), "state/gen-*/MANIFEST-*");
    assert_eq!(kind_of("IDENTITY"), "IDENTITY");
}
