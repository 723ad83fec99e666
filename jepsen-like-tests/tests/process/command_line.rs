//! The command line as scripts use it: exit codes, and a `tail` that follows across a dead leader.

use std::process::Stdio;
use std::time::Duration;

use quorate_torture::cli::{Output, run};
use quorate_torture::cluster::Cluster;
use quorate_torture::http::Call;
use quorate_torture::wait::eventually;
use quorate_torture::workload::{messages, page_of};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpListener;

use crate::{CLUSTER_VERSION, SOON};

/// A command may go on asking for as long as its own time-out, 30 s.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(40);

async fn quorate(cluster: &Cluster, args: &[&str]) -> Output {
    run(cluster.cli(args), COMMAND_TIMEOUT).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exit_codes_say_done_refused_usage_or_unknown() {
    let cluster = Cluster::options().start().await.unwrap();
    cluster.create_room(1, "hall").await.unwrap();

    let sent = quorate(&cluster, &["send", "hall", "hello", "--output", "json"]).await;
    assert_eq!(sent.code, Some(0), "{sent:?}");
    let answer: Value = serde_json::from_str(&sent.stdout).unwrap();
    assert_eq!(
        (answer["seq"].as_u64(), answer["sender"].as_str()),
        (Some(1), Some("root"))
    );
    let history = quorate(&cluster, &["history", "hall"]).await;
    assert_eq!(history.code, Some(0), "{history:?}");
    assert!(history.stdout.contains("hello"), "{history:?}");
    let status = quorate(&cluster, &["status", "--output", "json"]).await;
    assert_eq!(status.code, Some(0), "{status:?}");
    assert!(serde_json::from_str::<Value>(&status.stdout).is_ok(), "{status:?}");

    for refused in [
        vec!["send", "nowhere", "hello"],
        vec!["history", "nowhere"],
        vec!["send", "hall", "x", "--as", "nobody"],
    ] {
        let output = quorate(&cluster, &refused).await;
        assert_eq!(output.code, Some(1), "{refused:?}: {output:?}");
        assert!(!output.stderr.is_empty(), "{refused:?}: a refusal says why");
    }
    for usage in [
        vec!["send", "hall"],
        vec!["nonsense"],
        vec!["status", "--colour-of-the-sky"],
        vec![],
    ] {
        let output = quorate(&cluster, &usage).await;
        assert_eq!(output.code, Some(2), "{usage:?}: {output:?}");
    }
    // Options may stand anywhere on the line.
    let early = run(
        cluster.bare_cli(&["--endpoints", &cluster.endpoints(), "status"]),
        COMMAND_TIMEOUT,
    )
    .await
    .unwrap();
    assert_eq!(early.code, Some(0), "{early:?}");
    let page = cluster.expect(1, Call::get(messages("hall")), 200).await.unwrap();
    assert_eq!(page_of(&page).unwrap().1, 1, "only one of these commands sent anything");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_edited_shown_and_redacted() {
    let cluster = Cluster::options().start().await.unwrap();
    cluster.wait_version(CLUSTER_VERSION).await.unwrap();
    cluster.create_room(1, "hall").await.unwrap();
    cluster.create_user(1, "ann").await.unwrap();
    let done = async |args: &[&str]| {
        let output = quorate(&cluster, args).await;
        assert_eq!(output.code, Some(0), "{args:?}: {output:?}");
        output.stdout
    };
    done(&["send", "hall", "helo", "--as", "ann"]).await;
    let mut command = cluster.cli(&["tail", "hall"]);
    let mut tail = command.stderr(Stdio::inherit()).spawn().unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    let mut shown = async || {
        let line = tokio::time::timeout(SOON, lines.next_line()).await;
        line.expect("the tail shows it").unwrap().expect("the tail goes on")
    };
    assert!(shown().await.ends_with("<ann> helo"));

    let edited = done(&["edit", "hall", "1", "hello", "--as", "ann"]).await;
    assert!(edited.ends_with("<ann> hello (edited)\n"), "{edited}");
    assert!(shown().await.ends_with("** edited: hello"));
    let history = done(&["history", "hall"]).await;
    assert_eq!(history, edited);
    let revisions = done(&["revisions", "hall", "1", "--output", "json"]).await;
    let revisions: Value = serde_json::from_str(&revisions).unwrap();
    assert_eq!(revisions["revisions"][0]["text"], "helo");
    assert!(done(&["revisions", "hall", "1"]).await.contains("helo"));

    let redacted = done(&["redact", "hall", "1", "--as", "ann"]).await;
    assert_eq!(redacted, "message 1 of hall redacted\n");
    assert!(shown().await.ends_with("** redacted"));
    assert!(done(&["history", "hall"]).await.ends_with("<ann> (redacted)\n"));

    done(&["send", "hall", "as root"]).await;
    for (refused, code) in [
        (vec!["edit", "hall", "2", "x", "--as", "ann"], 1),
        (vec!["redact", "hall", "2", "--as", "ann"], 1),
        (vec!["redact", "hall", "1"], 1),
        (vec!["edit", "hall", "1", "x"], 1),
        (vec!["revisions", "hall", "9"], 1),
        (vec!["edit", "hall", "one", "x"], 2),
        (vec!["edit", "hall", "1"], 2),
    ] {
        let output = quorate(&cluster, &refused).await;
        assert_eq!(output.code, Some(code), "{refused:?}: {output:?}");
    }
}

/// A node that takes the request and dies before it answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_send_whose_outcome_is_unknown_exits_with_3() {
    let cluster = Cluster::options().start().await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let dying = tokio::spawn(async move {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else {
                return;
            };
            let mut request = vec![0; 64 << 10];
            // Once something of the request has come, the connection ends.
            let _ = stream.read(&mut request).await;
        }
    });
    let endpoint = format!("http://{address}");
    let command = cluster.bare_cli(&["send", "hall", "hello", "--endpoints", &endpoint, "--timeout", "2"]);
    let output = run(command, COMMAND_TIMEOUT).await;
    dying.abort();
    let output = output.unwrap();
    assert_eq!(output.code, Some(3), "{output:?}");
    assert!(!output.stderr.is_empty(), "it says that the outcome is not known");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tail_follows_across_a_dead_leader_and_shows_each_message_once() {
    let cluster = Cluster::options().start().await.unwrap();
    cluster.create_room(1, "hall").await.unwrap();
    let mut command = cluster.cli(&["tail", "hall", "--output", "json"]);
    let mut tail = command.stderr(Stdio::inherit()).spawn().unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();

    // Until the tail listens, what it shows is its own affair: from the first shown message on, all must come.
    let mut sent = 0_u64;
    let mut send = async |node: u64| {
        let call =
            |client_id: &str| Call::post(messages("hall"), &json!({ "text": client_id, "client_id": client_id }));
        sent += 1;
        let text = format!("m{sent}");
        eventually("the message is committed", SOON, async || {
            match cluster.send(node, call(&text)).await {
                Ok(answer) if answer.status == 201 => Ok(()),
                Ok(answer) => Err(answer.to_string()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await
        .unwrap();
        sent
    };
    let first = loop {
        send(1).await;
        if let Ok(line) = tokio::time::timeout(Duration::from_millis(100), lines.next_line()).await {
            break seq_of(&line.unwrap().expect("the tail goes on"));
        }
    };
    let leader = cluster.leader().await.unwrap();
    let alive = cluster.others(leader);
    let mut last = 0;
    for turn in 0..30 {
        if turn == 10 {
            cluster.kill(leader).await.unwrap();
        }
        if turn == 20 {
            cluster.restart(leader).unwrap();
        }
        last = send(alive[turn % 2]).await;
    }
    for expected in first + 1..=last {
        let line = tokio::time::timeout(SOON, lines.next_line()).await;
        let line = line
            .unwrap_or_else(|_| panic!("seq {expected} of {last} does not come"))
            .unwrap();
        assert_eq!(seq_of(&line.expect("the tail goes on")), expected);
    }
    assert!(
        tail.try_wait().unwrap().is_none(),
        "the tail goes on until it is stopped"
    );
}

fn seq_of(line: &str) -> u64 {
    let message: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    message["seq"]
        .as_u64()
        .unwrap_or_else(|| panic!("a message without seq: {line}"))
}
