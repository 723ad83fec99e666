//! Logs imported side by side while the leader dies: every line is there, once, in its place, and
//! every node shows the same bytes.

use std::path::PathBuf;
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use jiff::ToSpan;
use quorate_torture::cli;
use quorate_torture::cluster::Cluster;
use quorate_torture::http::Call;
use quorate_torture::irc::{self, Line};
use quorate_torture::wait::eventually;
use quorate_torture::workload::messages;
use serde_json::Value;

use crate::SOON;
use crate::sample_logs::logs;

/// All imports together, a fail-over among them.
const IMPORT_TIMEOUT: Duration = Duration::from_secs(120);

struct Log {
    path: PathBuf,
    room: String,
    lines: Vec<Line>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_imported_while_the_leader_dies_are_whole_on_every_node() {
    let cluster = Cluster::options().start().await.unwrap();
    let logs: Vec<Log> = logs(cluster.folder())
        .into_iter()
        .enumerate()
        .map(|(number, path)| {
            let lines = irc::parse(&std::fs::read(&path).unwrap());
            Log {
                path,
                room: format!("log-{number}"),
                lines,
            }
        })
        .collect();
    let total: u64 = logs.iter().map(|log| log.lines.len() as u64).sum();

    let leader = cluster.leader().await.unwrap();
    let witness = cluster.others(leader)[0];
    let imports: Vec<_> = logs.iter().map(|log| import(&cluster, log).spawn().unwrap()).collect();
    eventually("lines arrive", SOON, async || {
        let arrived = lines_in(&cluster, witness).await;
        if arrived > 0 { Ok(()) } else { Err("no line yet") }
    })
    .await
    .unwrap();
    cluster.kill(leader).await.unwrap();
    let arrived = lines_in(&cluster, witness).await;
    assert!(
        arrived < total,
        "the import was over before the leader died: {arrived} of {total}"
    );
    println!("node {leader} was killed with {arrived} of {total} lines on node {witness}");
    cluster.leader_after(leader).await.unwrap();
    cluster.restart(leader).unwrap();

    let outputs = join_all(imports.into_iter().map(|import| cli::finish(import, IMPORT_TIMEOUT))).await;
    for (log, output) in logs.iter().zip(outputs) {
        let output = output.unwrap();
        assert_eq!(output.code, Some(0), "{}: {output:?}", log.path.display());
    }
    cluster.wait_all_ready().await.unwrap();
    for log in &logs {
        assert_room_is_the_log(&cluster, log).await;
    }

    // Once more: nothing is added.
    let again = cli::run(import(&cluster, &logs[0]), IMPORT_TIMEOUT).await.unwrap();
    assert_eq!(again.code, Some(0), "{again:?}");
    assert_eq!(lines_in(&cluster, witness).await, total);
}

fn import(cluster: &Cluster, log: &Log) -> tokio::process::Command {
    cluster.cli(&["import", "irc", log.path.to_str().unwrap(), "--room", &log.room])
}

/// Messages in all rooms, as this node has them.
async fn lines_in(cluster: &Cluster, node: u64) -> u64 {
    let answer = cluster
        .expect(node, Call::get("/v1/rooms?level=local&limit=500"), 200)
        .await
        .unwrap();
    let rooms = answer.json().unwrap();
    rooms["rooms"]
        .as_array()
        .unwrap()
        .iter()
        .map(|room| room["last_seq"].as_u64().unwrap())
        .sum()
}

async fn assert_room_is_the_log(cluster: &Cluster, log: &Log) {
    let room = cluster
        .expect(1, Call::get(format!("/v1/rooms/{}", log.room)), 200)
        .await
        .unwrap();
    let position = room.position().unwrap();
    assert_eq!(
        room.json().unwrap()["last_seq"].as_u64(),
        Some(log.lines.len() as u64),
        "{}",
        log.path.display()
    );
    let minutes = irc::minutes(&log.lines);
    let mut seen = 0;
    while seen < log.lines.len() {
        let path = format!("{}?level=local&after={seen}&limit=500", messages(&log.room));
        let call = || Call::get(&path).min_position(&position);
        let pages = try_join_all(cluster.ids().into_iter().map(|id| cluster.expect(id, call(), 200)))
            .await
            .unwrap();
        assert!(
            pages.iter().all(|page| page.body == pages[0].body),
            "{path} differs between nodes"
        );
        let page = pages[0].json().unwrap();
        let page = page["messages"].as_array().unwrap();
        assert!(!page.is_empty(), "{path} is empty");
        for message in page {
            let line = &log.lines[seen];
            seen += 1;
            let place = format!("{}, line {}", log.path.display(), seen - 1);
            assert_eq!(message["seq"].as_u64(), Some(seen as u64), "{place}");
            assert_eq!(message["kind"], line.kind, "{place}");
            assert_eq!(message["sender"], line.sender, "{place}");
            assert_eq!(message["text"], line.text, "{place}");
            if let Some(minutes) = minutes[seen - 1] {
                assert_time(message, log, minutes, &place);
            }
        }
    }
    assert_eq!(seen, log.lines.len());
}

/// The minute that the line shows, on the day that the file is named after or a later one.
#[track_caller]
fn assert_time(message: &Value, log: &Log, minutes: u32, place: &str) {
    let name = log.path.file_name().unwrap().to_str().unwrap();
    let day: jiff::civil::Date = name[..10].parse().unwrap();
    let minute = day.at(0, 0, 0, 0) + i64::from(minutes).minutes();
    let expected = minute.strftime("%Y-%m-%dT%H:%M:").to_string();
    let sent_at = message["sent_at"].as_str().unwrap();
    assert!(
        sent_at.starts_with(&expected) && sent_at.ends_with('Z'),
        "{place}: {sent_at} is not {expected}"
    );
}
