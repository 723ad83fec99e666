//! `quorate lock run`: when the node that a runner talks to is paused or cut off, its command is dead before the
//! next one gets the lock.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::join_all;
use quorate_torture::cli::{Output, finish};
use quorate_torture::cluster::Cluster;
use quorate_torture::wait::eventually;

use crate::SOON;

/// How many pairs of runners, unless `QUORATE_TEST_LOCK_RUNS` says otherwise.
const PAIRS: usize = 12;
/// So many pairs, each with a lock of its own, meet the same fault.
const PAIRS_A_FAULT: usize = 6;
const TTL: &str = "2s";
/// Two ttls and an election, on a busy machine.
const RUN_WITHIN: Duration = Duration::from_secs(60);

/// Says who it is, then works until it is killed; it does not listen to TERM.
const FIRST: &str = r#"trap '' TERM; echo $$ > "$1.pid.new"; mv "$1.pid.new" "$1.pid"; while :; do date +%s%N > "$1.beat"; sleep 0.01; done"#;
/// Looks whether the first still lives at the very moment at which it may begin.
const SECOND: &str =
    r#"if kill -0 "$(cat "$1.pid")" 2>/dev/null; then echo alive; else echo dead; fi; echo "$QUORATE_LOCK_TOKEN""#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_command_is_dead_before_the_second_starts() {
    let pairs: usize = std::env::var("QUORATE_TEST_LOCK_RUNS").map_or(PAIRS, |text| text.parse().unwrap());
    let cluster = Arc::new(Cluster::options().breakable_links().start().await.unwrap());
    let mut done = 0;
    for fault in 0.. {
        if done >= pairs {
            break;
        }
        let leader = cluster.leader().await.unwrap();
        // The node of the first runner leads, or follows, in turn; it is paused, or cut off.
        let node = if fault % 2 == 0 {
            leader
        } else {
            cluster.others(leader)[0]
        };
        let is_paused = fault / 2 % 2 == 0;
        let firsts: Vec<Runner> = (0..PAIRS_A_FAULT)
            .map(|pair| Runner::first(&cluster, node, &format!("lock-{fault}-{pair}")).unwrap())
            .collect();
        for first in &firsts {
            first.wait_running().await.unwrap();
        }
        let others: Vec<String> = cluster.others(node).iter().map(|id| cluster.node(*id).url()).collect();
        let seconds: Vec<Runner> = firsts
            .iter()
            .map(|first| first.second(&cluster, &others).unwrap())
            .collect();
        match is_paused {
            true => cluster.pause(node).unwrap(),
            false => cluster.network().isolate(node),
        }
        let seconds = join_all(seconds.into_iter().map(Runner::finish)).await;
        for second in seconds {
            let second = second.unwrap();
            assert_eq!(second.code, Some(0), "{second:?}");
            assert!(
                second.stdout.starts_with("dead\n"),
                "the first command lived on: {second:?}"
            );
        }
        match is_paused {
            true => cluster.resume(node).unwrap(),
            false => cluster.network().heal(),
        }
        for first in join_all(firsts.into_iter().map(Runner::finish)).await {
            let first = first.unwrap();
            assert_eq!(
                first.code,
                Some(1),
                "the lock was lost, and the runner says so: {first:?}"
            );
        }
        cluster.wait_all_ready().await.unwrap();
        done += PAIRS_A_FAULT;
    }
    println!("{done} of {done} first commands were dead before the second started");
}

struct Runner {
    lock: String,
    /// What its command writes begins with this.
    files: PathBuf,
    child: tokio::process::Child,
}

impl Runner {
    fn first(cluster: &Cluster, node: u64, lock: &str) -> Result<Self> {
        let files = cluster.folder().join(lock);
        Self::start(cluster, &cluster.node(node).url(), lock, files, FIRST)
    }

    fn second(&self, cluster: &Cluster, endpoints: &[String]) -> Result<Self> {
        Self::start(cluster, &endpoints.join(","), &self.lock, self.files.clone(), SECOND)
    }

    fn start(cluster: &Cluster, endpoints: &str, lock: &str, files: PathBuf, script: &str) -> Result<Self> {
        let path = files.to_str().context("a path of this test is text")?;
        let args = [
            "--endpoints",
            endpoints,
            "lock",
            "run",
            lock,
            "--ttl",
            TTL,
            "--",
            "sh",
            "-c",
            script,
            "sh",
            path,
        ];
        Ok(Self {
            lock: lock.to_owned(),
            child: cluster.bare_cli(&args).spawn()?,
            files,
        })
    }

    async fn wait_running(&self) -> Result<()> {
        let beat = self.files.with_extension("beat");
        let running = async || {
            let written = Path::new(&beat).exists();
            ensure!(written, "{} was not made", beat.display());
            Ok(())
        };
        eventually("the first command runs", SOON, running).await
    }

    async fn finish(self) -> Result<Output> {
        finish(self.child, RUN_WITHIN).await
    }
}
