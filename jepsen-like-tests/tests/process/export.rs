//! What export writes, import jsonl reads back: the same messages under the same seqs, in another
//! room and in another cluster, also when the leader dies on the way.

use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate_torture::cli::{self, Output};
use quorate_torture::cluster::Cluster;
use quorate_torture::http::Call;
use quorate_torture::wait::eventually;
use quorate_torture::workload::messages;
use serde_json::{Value, json};

use crate::SOON;
use crate::sample_logs::logs;

/// One export or import of a log, a fail-over among it.
const RUN_TIMEOUT: Duration = Duration::from_secs(120);

async fn quorate(cluster: &Cluster, args: &[&str]) -> Output {
    let output = cli::run(cluster.cli(args), RUN_TIMEOUT).await.unwrap();
    assert_eq!(output.code, Some(0), "{args:?}: {output:?}");
    output
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The messages of an export, without what the store gives anew.
fn content(path: &Path) -> Vec<Value> {
    let lines = std::fs::read_to_string(path).unwrap();
    let mut messages: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for message in &mut messages {
        let message = message.as_object_mut().unwrap();
        message.remove("room").unwrap();
        message.remove("rev").unwrap();
    }
    messages
}

async fn export(cluster: &Cluster, room: &str) -> PathBuf {
    let path = cluster.folder().join(format!("{room}.jsonl"));
    quorate(cluster, &["export", room, "--file", text(&path)]).await;
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_is_read_back_to_the_same_messages() {
    let cluster = Cluster::options().start().await.unwrap();
    let log = logs(cluster.folder()).swap_remove(0);
    quorate(&cluster, &["import", "irc", text(&log), "--room", "original"]).await;
    // What no log has.
    for body in [
        json!({"text": "", "kind": "notice"}),
        json!({"text": "a\u{0}b\n", "client_id": "mine", "reply_to": 3, "attributes": {"a": [1.5, {"b": null}]}}),
    ] {
        let call = Call::post(messages("original"), &body);
        cluster.expect(1, call, 201).await.unwrap();
    }

    let first = export(&cluster, "original").await;
    let given = content(&first);
    assert!(given.len() > 1000 && given.iter().any(|message| message["reply_to"] == 3));
    let printed = quorate(&cluster, &["export", "original", "--after", "7", "--limit", "3"]).await;
    let whole = std::fs::read_to_string(&first).unwrap();
    let part: Vec<&str> = whole.lines().skip(7).take(3).collect();
    assert_eq!(printed.stdout.lines().collect::<Vec<_>>(), part);

    // The leader dies while it is read back.
    let leader = cluster.leader().await.unwrap();
    let args = ["import", "jsonl", text(&first), "--room", "copy", "--batch-lines", "20"];
    let import = cluster.cli(&args).spawn().unwrap();
    let witness = cluster.others(leader)[0];
    eventually("messages arrive", SOON, async || {
        let room = cluster.send(witness, Call::get("/v1/rooms/copy?level=local")).await;
        let last_seq = room.ok().and_then(|room| room.json().ok()?["last_seq"].as_u64());
        if last_seq.is_some_and(|seq| seq > 0) {
            Ok(())
        } else {
            Err("none yet")
        }
    })
    .await
    .unwrap();
    cluster.kill(leader).await.unwrap();
    let output = cli::finish(import, RUN_TIMEOUT).await.unwrap();
    assert_eq!(output.code, Some(0), "{output:?}");
    cluster.restart(leader).unwrap();
    assert_same(&given, &content(&export(&cluster, "copy").await));

    // Once more, and once more from a room that is cut off in the middle of the file.
    quorate(&cluster, &["import", "jsonl", text(&first), "--room", "copy"]).await;
    assert_same(&given, &content(&export(&cluster, "copy").await));
    let half = cluster.folder().join("half").join("original.jsonl");
    std::fs::create_dir(half.parent().unwrap()).unwrap();
    let lines: Vec<&str> = whole.lines().take(given.len() / 2).collect();
    std::fs::write(&half, lines.join("\n")).unwrap();
    for path in [&half, &first] {
        quorate(&cluster, &["import", "jsonl", text(path), "--room", "resumed"]).await;
    }
    assert_same(&given, &content(&export(&cluster, "resumed").await));

    // A line that is no message: nothing is imported, not even the lines before it.
    let bad = cluster.folder().join("bad.jsonl");
    std::fs::write(&bad, format!("{}\n{{\"seq\": 2}}\n", whole.lines().next().unwrap())).unwrap();
    let refused = cli::run(
        cluster.cli(&["import", "jsonl", text(&bad), "--room", "bad"]),
        RUN_TIMEOUT,
    );
    let refused = refused.await.unwrap();
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("bad.jsonl: line 2"), "{refused:?}");
    cluster.expect(witness, Call::get("/v1/rooms/bad"), 404).await.unwrap();

    let fresh = Cluster::options().nodes(1).start().await.unwrap();
    quorate(&fresh, &["import", "jsonl", text(&first), "--room", "moved"]).await;
    assert_same(&given, &content(&export(&fresh, "moved").await));
}

#[track_caller]
fn assert_same(given: &[Value], copy: &[Value]) {
    for (given, copy) in given.iter().zip(copy) {
        assert_eq!(given, copy);
    }
    assert_eq!(given.len(), copy.len());
}
