//! The simulation itself: it finds nothing, it repeats itself, and it runs the product's own code.

use std::path::Path;
use std::process::Command;

use quorate_simulate::{Counts, Outcome, Settings, run};

const SETTINGS: Settings = Settings {
    seconds: 10,
    nodes: None,
};

/// Ten seeds a test, so that several run side by side.
fn find_nothing(first_seed: u64) {
    let mut sum = Counts::default();
    for seed in first_seed..first_seed + 10 {
        let Outcome { counts, violation, .. } = run(seed, SETTINGS);
        if let Some((checker, what)) = violation {
            panic!(
                "seed {seed}: {checker}: {what}\nrepeat it: simulate --replay {seed} --seconds {}",
                SETTINGS.seconds
            );
        }
        sum.add(&counts);
    }
    println!("{sum}");
    assert!(
        sum.operations > 2000 && sum.elections > 20 && sum.failovers > 0,
        "too little happened to mean anything"
    );
}

#[test]
fn seeds_1_to_10_find_nothing() {
    find_nothing(1);
}

#[test]
fn seeds_11_to_20_find_nothing() {
    find_nothing(11);
}

#[test]
fn seeds_21_to_30_find_nothing() {
    find_nothing(21);
}

#[test]
fn seeds_31_to_40_find_nothing() {
    find_nothing(31);
}

#[test]
fn seeds_41_to_50_find_nothing() {
    find_nothing(41);
}

#[test]
fn the_same_seed_is_the_same_run_byte_for_byte() {
    let first = run(7, SETTINGS).trace;
    assert!(
        first.len() > 100_000,
        "a trace of {} bytes shows too little",
        first.len()
    );
    let others = [8, 9, 10].map(|seed| run(seed, SETTINGS).trace);
    assert!(first == run(7, SETTINGS).trace, "a later run of the process differs");
    for (seed, other) in [8, 9, 10].into_iter().zip(&others) {
        assert!(
            *other == run(seed, SETTINGS).trace,
            "the second run of seed {seed} differs"
        );
    }
    let replay = Command::new(env!("CARGO_BIN_EXE_simulate"))
        .args(["--replay", "7", "--seconds", "10"])
        .output();
    let replay = replay.expect("the binary was built with this test");
    assert!(replay.status.success());
    let printed = String::from_utf8(replay.stdout).expect("a trace is text");
    assert!(printed.starts_with(&first), "another process's run differs");
    assert!(others[0] != first, "another seed is another run");
}

/// A simulation of something that was written for the simulation proves nothing about the product.
#[test]
fn nothing_of_raft_or_of_the_rules_is_defined_here() {
    let forbidden = [
        "RaftStateMachine",
        "RaftLogStorage",
        "RaftNetwork",
        "RaftTypeConfig",
        "client_write",
        "fn apply(",
        "fn propose",
        "impl StateStore",
        "impl LogStore",
        "impl Replica",
    ];
    let mut files = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut looked_at = 0;
    while let Some(path) = files.pop() {
        if path.is_dir() {
            let entries = std::fs::read_dir(&path).expect("it is a directory");
            files.extend(entries.map(|entry| entry.expect("it can be listed").path()));
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("sources are text");
        looked_at += 1;
        for word in forbidden {
            assert!(!text.contains(word), "{} has `{word}`", path.display());
        }
    }
    assert!(looked_at > 10, "{looked_at} files are not all");
}
