//! `quorate bench` against a real cluster: each workload for a moment. No speed is asserted; what is, is that the
//! figures are there, that they fit each other, and what a run leaves behind.

use std::time::Duration;

use anyhow::{Context, Result};
use quorate_torture::cli::{Output, run};
use quorate_torture::cluster::Cluster;
use quorate_torture::http::Call;
use serde_json::Value;

/// A workload here takes a second or two; the machine may be busy.
const BENCH_TIMEOUT: Duration = Duration::from_secs(60);

async fn bench(cluster: &Cluster, line: &str) -> Output {
    let args: Vec<&str> = ["bench"].into_iter().chain(line.split(' ')).collect();
    run(cluster.cli(&args), BENCH_TIMEOUT).await.unwrap()
}

/// Runs it for a moment, and gives what it printed.
async fn measured(cluster: &Cluster, line: &str) -> Value {
    let line = format!("{line} --duration 700ms --warm-up 200ms --output json");
    let output = bench(cluster, &line).await;
    assert_eq!(output.code, Some(0), "{line}: {output:?}");
    let printed: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    assert_eq!(printed["workload"], line.split(' ').next().unwrap());
    assert_eq!(
        printed["errors"],
        Value::Object(Default::default()),
        "{line}: {printed}"
    );
    assert_eq!(printed["read_back"]["lies"], 0, "{printed}");
    printed
}

/// How many were timed of this kind, of which all figures are in order.
fn timed(printed: &Value, kind: &str) -> Result<u64> {
    let times = printed["times"].as_array().context("times")?;
    let times = times.iter().find(|times| times["kind"] == kind).context("the kind")?;
    let figure = |name: &str| times[name].as_f64().with_context(|| format!("{name} in {times}"));
    let order = ["p50_ms", "p90_ms", "p99_ms", "p99_9_ms"].map(|name| figure(name).unwrap());
    assert!(order.is_sorted() && order[0] > 0.0, "{times}");
    assert!(figure("max_ms")? >= order[3] * 0.999, "{times}");
    times["count"].as_u64().context("count")
}

async fn count(cluster: &Cluster, list: &str) -> usize {
    let answer = cluster.expect(1, Call::get(format!("/v1/{list}?limit=500")), 200).await;
    let page: Value = serde_json::from_slice(&answer.unwrap().body).unwrap();
    page[list].as_array().unwrap().len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_sent_counted_and_read_back() {
    let cluster = Cluster::options().start().await.unwrap();
    let printed = measured(&cluster, "send --clients 4 --rooms 3 --members 2 --sample 50").await;
    assert!(timed(&printed, "send").unwrap() > 0);
    let (asked, held) = (&printed["read_back"]["asked"], &printed["read_back"]["held"]);
    assert_eq!(asked, held);
    assert!((1..=50).contains(&asked.as_u64().unwrap()), "{printed}");
    assert!(
        printed["left"].as_str().unwrap().starts_with("3 rooms bench-"),
        "{printed}"
    );
    assert_eq!(printed["settings"]["message_bytes"], 256);
    assert_eq!((count(&cluster, "rooms").await, count(&cluster, "users").await), (3, 2));

    // Open loop, HTTP/2, keys; and nothing is left.
    let line = "send --rate 100 --rooms 2 --http 2 --keyed --nodes leader --cleanup --message-bytes 5";
    let printed = measured(&cluster, line).await;
    let open = &printed["open_loop"];
    assert_eq!(open["per_second_due"], 100.0);
    // Of 90 that were due all were asked, or are told.
    let not_started = open["not_started"].as_u64().unwrap();
    assert!(timed(&printed, "send").unwrap() + not_started >= 70, "{printed}");
    assert_eq!(printed["left"], Value::Null);
    assert_eq!((count(&cluster, "rooms").await, count(&cluster, "users").await), (3, 2));

    let printed = measured(&cluster, "batch --size 7 --clients 2 --cleanup").await;
    assert_eq!(
        printed["units"].as_u64().unwrap(),
        7 * printed["operations"].as_u64().unwrap()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_sent_over_websockets() {
    let cluster = Cluster::options().start().await.unwrap();
    let rooms = "--rooms 3 --members 2 --cleanup";
    for line in [
        "send --over ws --clients 12 --connections 2",
        "send --over ws --rate 100 --keyed --nodes leader",
        "batch --over ws --size 7 --clients 2 --keyed",
    ] {
        let printed = measured(&cluster, &format!("{line} {rooms}")).await;
        let kind = line.split(' ').next().unwrap();
        assert!(timed(&printed, kind).unwrap() > 0, "{printed}");
        let back = &printed["read_back"];
        assert!(
            back["asked"].as_u64().unwrap() > 0 && back["asked"] == back["held"],
            "{printed}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_before_is_read() {
    let cluster = Cluster::options().start().await.unwrap();
    let rooms = "--clients 4 --rooms 2 --messages 60 --cleanup";
    for (line, kind) in [
        ("read", "read"),
        ("read --level local --nodes followers --as nobody-at-all", ""),
        ("history --limit 50", "page"),
        ("history --limit 100 --level local", "page"),
        ("history --page newest --connections 1", "page"),
    ] {
        if kind.is_empty() {
            let refused = bench(&cluster, &format!("{line} {rooms}")).await;
            assert_eq!(refused.code, Some(1), "that user is not there: {refused:?}");
            continue;
        }
        let printed = measured(&cluster, &format!("{line} {rooms}")).await;
        assert!(timed(&printed, kind).unwrap() > 0, "{printed}");
    }
    let printed = measured(&cluster, &format!("mixed --subscribers 4 {rooms}")).await;
    assert!(timed(&printed, "poll").unwrap() > 0 && timed(&printed, "look").unwrap() > 0);
    assert_eq!(count(&cluster, "rooms").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_and_hand_overs_are_timed() {
    let cluster = Cluster::options().start().await.unwrap();
    let printed = measured(&cluster, "streams --subscribers 6 --rooms 2 --rate 50").await;
    let deliveries = &printed["deliveries"];
    assert_eq!(
        (&deliveries["missing"], &deliveries["subscribers"]),
        (&0.into(), &6.into())
    );
    // Each message comes to the three who read its room.
    assert_eq!(
        deliveries["delivered"].as_u64().unwrap() % 3,
        0,
        "each of a room's readers is given the same: {printed}"
    );
    assert!(deliveries["times"]["p50_ms"].as_f64().unwrap() > 0.0, "{printed}");

    let printed = measured(&cluster, "locks --owners 5").await;
    assert!(timed(&printed, "hand-over").unwrap() > 0, "{printed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gap_of_a_failover_is_found_and_nothing_is_lost() {
    let cluster = Cluster::options().start().await.unwrap();
    let line = "failover --transfer --rounds 2 --rate 200 --calm 300ms --rooms 2 --output json";
    let output = bench(&cluster, line).await;
    assert_eq!(output.code, Some(0), "{output:?}");
    let printed: Value = serde_json::from_str(&output.stdout).unwrap();
    let rounds = printed["rounds"].as_array().unwrap();
    assert_eq!(rounds.len(), 2);
    for round in rounds {
        assert_ne!(round["leader_before"], round["leader_after"], "{round}");
        assert!(
            round["gap_ms"].as_f64().unwrap() > 0.0 && round["terms"].as_u64().unwrap() > 0,
            "{round}"
        );
    }
    assert_eq!(printed["lost"], 0);
    assert!(printed["acknowledged"].as_u64().unwrap() > 100, "{printed}");

    // A command that does nothing moves no leader: the run says so instead of making a gap up.
    let line = "failover --rounds 1 --calm 100ms --recover-within 1s --kill-command true";
    let output = bench(&cluster, line).await;
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stderr.contains("nobody but node"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_comes_back_by_the_commands_that_are_given() {
    let cluster = Cluster::options().start().await.unwrap();
    // As an operator would: the leader's id picks the process, by a file that names it.
    let folder = cluster.folder();
    for id in cluster.ids() {
        let pid = cluster.node(id).process().id().unwrap();
        std::fs::write(folder.join(format!("pid-{id}")), pid.to_string()).unwrap();
    }
    let shown = folder.display();
    let kill = format!("kill -STOP $(cat {shown}/pid-$QUORATE_BENCH_LEADER)");
    let restart = format!("kill -CONT $(cat {shown}/pid-$QUORATE_BENCH_LEADER)");
    let mut args = "bench failover --rounds 1 --rate 100 --calm 300ms --output json"
        .split(' ')
        .collect::<Vec<_>>();
    args.extend(["--kill-command", &kill, "--restart-command", &restart]);
    let output = run(cluster.cli(&args), BENCH_TIMEOUT).await.unwrap();
    assert_eq!(output.code, Some(0), "{output:?}");
    let printed: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(printed["lost"], 0, "{printed}");
    // A paused leader is missed after its heartbeats are: that is not done in no time.
    assert!(printed["max_gap_ms"].as_f64().unwrap() > 50.0, "{printed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bench_that_makes_no_sense_ends_with_2_and_one_that_reaches_nobody_with_1() {
    let cluster = Cluster::options().start().await.unwrap();
    for line in [
        "send --clients 0",
        "send --idempotency-key k",
        "send --over ws --http 2",
        "streams --message-bytes 15",
        "failover --transfer --rate 5",
        "locks --owners 5000",
        "send --members 2 --token secret",
    ] {
        let output = bench(&cluster, line).await;
        assert_eq!(output.code, Some(2), "{line}: {output:?}");
    }
    assert_eq!(count(&cluster, "rooms").await, 0, "nothing was made");
    let args = ["bench", "send", "--endpoints", "http://127.0.0.1:9"];
    let output = run(cluster.bare_cli(&args), BENCH_TIMEOUT + BENCH_TIMEOUT)
        .await
        .unwrap();
    assert_eq!(output.code, Some(1), "{output:?}");
}
