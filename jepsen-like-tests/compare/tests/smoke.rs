//! `compare` as a user runs it, for a moment and without the systems that must be installed first. No speed is asserted.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

fn compare(dir: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_compare"));
    command.args(line.split_whitespace()).arg("--dir").arg(dir);
    command
}

fn run(dir: &Path, line: &str) -> Output {
    compare(dir, line).output().expect("it was built with this test")
}

/// On the disk of the build: what is in memory is refused.
fn dir() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory can be made")
}

fn entries(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).expect("it is there");
    entries.map(|entry| entry.expect("it is readable").path()).collect()
}

#[test]
fn quorate_and_the_bare_handler_are_compared() {
    let (dir, out) = (dir(), dir());
    let line = format!(
        "--only quorate,bare --rounds 1 --duration 700ms --warm-up 200ms --rooms 3 --sample 50 --out {}",
        out.path().display()
    );
    let output = run(dir.path(), &line);
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert_eq!(output.status.code(), Some(0), "{stderr}\n{stdout}");
    assert!(stderr.contains("round 1/1"), "{stderr}");

    let json = std::fs::read(out.path().join("compare.json")).expect("it was written");
    let json: Value = serde_json::from_slice(&json).expect("it is JSON");
    let cells = json["figures"].as_array().expect("a list");
    assert_eq!(
        cells.len(),
        9 + 5,
        "all work of the one, and what the other does: {json}"
    );
    for cell in cells {
        let medians = &cell["medians"];
        for figure in ["per_second", "p50_ms", "p99_ms", "servers_us"] {
            assert!(medians[figure].as_f64().expect("a number") > 0.0, "{figure} of {cell}");
        }
        assert_eq!(medians["errors"], Value::Object(Default::default()), "{cell}");
        let reads = cell["work"].as_str().expect("a name").starts_with("read");
        let back = &medians["read_back"];
        assert_eq!(back["asked"].as_u64().expect("a number") > 0, !reads, "{cell}");
        assert_eq!(back["asked"], back["held"], "{cell}");
        let is_bare = cell["system"] == "bare";
        assert_eq!(cell["quorate_ratio"].is_number(), is_bare, "{cell}");
    }
    let verdicts = |verdict: &str| {
        let targets = json["targets"].as_array().expect("a list").iter();
        targets.filter(|target| target["verdict"] == verdict).count()
    };
    assert_eq!(
        verdicts("not_measured"),
        11,
        "those that need etcd or JetStream: {json}"
    );
    let markdown = std::fs::read_to_string(out.path().join("compare.md")).expect("it was written");
    assert!(
        markdown.contains("| reads of 50, 64 clients | bare handler |"),
        "{markdown}"
    );
    assert!(
        stdout.contains("bare handler") && stdout.contains("divided by etcd's"),
        "{stdout}"
    );
    assert_eq!(entries(dir.path()), [] as [std::path::PathBuf; 0], "nothing is left");
}

#[test]
fn an_interrupted_run_leaves_nothing_behind() {
    let dir = dir();
    let mut child = compare(dir.path(), "--only quorate,bare --duration 60s --work write-1")
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("it was built with this test");
    // It says so when the first cluster is about to be started.
    let mut said = BufReader::new(child.stderr.take().expect("it is piped")).lines();
    said.find(|line| line.as_ref().is_ok_and(|line| line.contains("fetching")))
        .expect("it tells what it does")
        .expect("it is text");
    let begun = Instant::now();
    while entries(dir.path()).is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(60), "a cluster is started");
        std::thread::sleep(Duration::from_millis(5));
    }
    let id = i32::try_from(child.id()).expect("a process id is small");
    kill(Pid::from_raw(id), Signal::SIGINT).expect("it runs");
    let status = child.wait().expect("it ends");
    assert_eq!(status.code(), Some(130));
    assert_eq!(entries(dir.path()), [] as [std::path::PathBuf; 0], "nothing is left");
}

#[test]
fn what_cannot_be_done_is_said_before_anything_is_started() {
    let dir = dir();
    for (line, words) in [
        ("--only etcd --etcd /no/such/etcd", "/no/such/etcd"),
        ("--only bare --quorate /no/such/quorate", "/no/such/quorate"),
        (
            "--only nats --work read-one",
            "none of these systems does any of this work",
        ),
        ("--rounds 0", "--rounds"),
    ] {
        let output = run(dir.path(), line);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{line}: {stderr}");
        assert!(stderr.contains(words), "{line}: {stderr}");
    }
    if Path::new("/dev/shm").is_dir() {
        let output = run(Path::new("/dev/shm"), "--only quorate --work write-1");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains("nothing would be synced"), "{stderr}");
    }
    assert_eq!(entries(dir.path()), [] as [std::path::PathBuf; 0], "nothing is left");
}
