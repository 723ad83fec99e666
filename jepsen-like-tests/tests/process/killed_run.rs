//! A run that is killed with -9 leaves nothing on the machine: no process, no mount, no loop device, no
//! network namespace, also while one of its disks hangs and a node of it is paused.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use quorate_torture::cluster::{Cluster, isolation};
use quorate_torture::wait::eventually;

use crate::SOON;

const NAME: &str = "killed_run::a_run_that_is_killed_leaves_nothing_behind";
/// What the run says of itself before it is killed: its loop devices and its processes.
const UP: &str = "up: ";
/// Until it has said so: three nodes on disks of their own, and a request that waits for its answer in vain.
const UP_WITHIN: Duration = Duration::from_secs(120);
/// Set for the run, not for the one who kills it.
const IS_THE_RUN: &str = "QUORATE_TEST_IS_THE_RUN";

#[test]
fn a_run_that_is_killed_leaves_nothing_behind() {
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    if std::env::var_os(IS_THE_RUN).is_some() {
        let inside = isolation::enter();
        return match inside {
            Ok(inside) => runtime().block_on(run_until_killed(inside)),
            Err(why) => println!("\nSKIPPED {NAME}: {why:#}"),
        };
    }
    runtime().block_on(kill_a_run());
}

async fn run_until_killed(inside: isolation::Isolation) {
    let options = Cluster::options().nodes(3).for_faults(Some(inside));
    let cluster = options.start().await.unwrap();
    let leader = cluster.leader().await.unwrap();
    let others = cluster.others(leader);
    cluster.freeze_disk(others[0]).unwrap();
    cluster.pause(others[1]).unwrap();
    // Has the node with the frozen disk wait for it where nobody can kill it.
    cluster.create_user(leader, "alice").await.unwrap_err();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let devices = mounts.lines().filter_map(|line| line.split(' ').next());
    let mut words: Vec<String> = devices
        .filter(|device| device.starts_with("/dev/loop"))
        .map(str::to_owned)
        .collect();
    assert_eq!(words.len(), 4, "{mounts}");
    words.extend(
        cluster
            .ids()
            .into_iter()
            .map(|id| cluster.node(id).process().id().unwrap().to_string()),
    );
    println!("\n{UP}{}", words.join(" "));
    std::future::pending::<()>().await;
}

async fn kill_a_run() {
    let run = Command::new(std::env::current_exe().unwrap())
        .args([NAME, "--exact", "--nocapture", "--test-threads=1"])
        .env(IS_THE_RUN, "yes")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut run = Run(run);
    let output = run.0.stdout.take().unwrap();
    let (tell, told) = mpsc::channel();
    // Ends with the run, whose output it reads.
    std::thread::spawn(move || {
        let mut lines = BufReader::new(output).lines().map_while(Result::ok);
        // Nobody listens any more when the test has failed.
        let _ = tell.send(lines.find(|line| line.starts_with(UP) || line.starts_with("SKIPPED")));
    });
    let told = told.recv_timeout(UP_WITHIN).expect("the run says something in time");
    let Some(made) = told.as_deref().and_then(|told| told.strip_prefix(UP)) else {
        let status = run.0.wait().unwrap();
        assert!(status.success(), "the run failed: {status}");
        return println!("{}", told.unwrap_or_default());
    };
    let left: Vec<PathBuf> = made.split(' ').map(place).collect();
    assert!(left.iter().all(|path| path.exists()), "{left:?}");

    // With -9.
    drop(run);

    eventually("nothing is left", SOON, async || {
        let left: Vec<&PathBuf> = left.iter().filter(|path| path.exists()).collect();
        match left.is_empty() {
            true => Ok(()),
            false => Err(format!("{left:?}")),
        }
    })
    .await
    .unwrap();
}

/// Is killed with -9 when it goes, also when the test fails before.
struct Run(Child);

impl Drop for Run {
    fn drop(&mut self) {
        // One that has ended already cannot be killed, which is as well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What exists as long as the device is in use, or the process lives.
fn place(word: &str) -> PathBuf {
    match word.strip_prefix("/dev/") {
        Some(device) => Path::new("/sys/block").join(device).join("loop/backing_file"),
        None => Path::new("/proc").join(word),
    }
}
