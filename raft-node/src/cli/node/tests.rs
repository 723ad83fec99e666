//! The node commands against a cluster whose answers are written by hand.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Parser;
use quorate_client::wire::{Change, ChangeStep, NewNode};
use serde_json::{Value, json};

use super::join;
use super::progress::Progress;
use crate::cli::exit::Failure;
use crate::cli::output::{Format, Output};
use crate::cli::testing::{self, Answer, refusal};
use crate::cli::{Cli, Command};

/// What was asked, and what the next questions are answered; the last answer of each kind stays.
#[derive(Default)]
struct Script {
    asked: Vec<String>,
    posts: VecDeque<Answer>,
    /// The `changes` of `/v1/cluster`.
    shown: VecDeque<Value>,
}

/// A leader that answers by its script.
struct Leader {
    url: String,
    script: Arc<Mutex<Script>>,
}

impl Leader {
    async fn start(posts: Vec<Answer>, shown: Vec<Value>) -> Self {
        let script = Arc::new(Mutex::new(Script {
            asked: Vec::new(),
            posts: posts.into(),
            shown: shown.into(),
        }));
        let shared = script.clone();
        let url = testing::serve(move |method, path, body| {
            let mut script = shared.lock().expect("no test panics while holding it");
            script
                .asked
                .push(format!("{method} {path} {}", String::from_utf8_lossy(body)));
            if method == "GET" {
                let changes = next(&mut script.shown).unwrap_or_else(|| json!([]));
                return Some((200, cluster(changes)));
            }
            next(&mut script.posts).expect("an answer in the script")
        })
        .await;
        Self { url, script }
    }

    /// Waits for node 4, which takes the place of node 1.
    async fn wait(&self, within: Duration) -> Result<Change, Failure> {
        let node = NewNode {
            id: 4,
            client_url: "http://h:7104".into(),
            peer_addr: "h:7204".into(),
            replaces: Some(1),
        };
        let client = testing::client(&self.url);
        join::wait(&client, &node, Instant::now() + within, &mut Progress::Nothing).await
    }

    fn asked(&self) -> Vec<String> {
        let script = self.script.lock().expect("no test panics while holding it");
        script.asked.clone()
    }

    /// Runs a line, with the endpoint behind it.
    async fn run(&self, line: &str) -> Result<(), Failure> {
        let line = format!("quorate {line} --endpoints {} --timeout 2", self.url);
        let cli = Cli::try_parse_from(line.split(' ')).expect("a good line");
        let Command::Node(node) = cli.command else {
            panic!("not a node command: {line}");
        };
        let timeout = cli.global.timeout;
        let client = cli.global.client(Duration::from_secs(5)).expect("a good endpoint");
        node.run(client, timeout, &Output::new(Format::Json)).await
    }
}

fn next<T: Clone>(answers: &mut VecDeque<T>) -> Option<T> {
    if answers.len() > 1 {
        answers.pop_front()
    } else {
        answers.front().cloned()
    }
}

fn cluster(changes: Value) -> Value {
    let node = |id: u64, url: &str| {
        json!({"id": id, "client_url": url, "peer_addr": "p", "role": "voter", "state": "follower",
               "last_log": 1, "applied": 1, "lag": 0})
    };
    json!({"cluster_id": "c", "version": 1, "nodes": [node(1, "http://127.0.0.1:1"), node(2, "http://127.0.0.1:2")],
           "leader": 1, "term": 1, "failures_tolerated": 1, "changes": changes})
}

fn change(step: &str) -> Value {
    json!({"kind": "replace", "node": 4, "replaces": 1, "step": step, "detail": "d"})
}

fn accepted(step: &str) -> Answer {
    Some((202, change(step)))
}

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn the_wait_ends_when_the_change_is_done() {
    let shown = vec![
        json!([change("catching_up")]),
        json!([change("failed"), change("promoting")]),
        json!([change("failed"), change("done")]),
    ];
    let leader = Leader::start(vec![accepted("contacting")], shown).await;
    let done = leader.wait(SOON).await.expect("a voter");
    assert_eq!(done.step, ChangeStep::Done);
    let asked = leader.asked();
    assert_eq!(
        asked[0],
        r#"POST /v1/cluster/nodes {"id":4,"client_url":"http://h:7104","peer_addr":"h:7204","replaces":1}"#
    );
    assert_eq!(asked.len(), 4, "{asked:?}");
    assert!(asked[1..].iter().all(|asked| asked == "GET /v1/cluster "), "{asked:?}");
}

#[tokio::test]
async fn a_change_that_nobody_knows_any_more_is_asked_for_again() {
    let other = json!({"kind": "add", "node": 5, "step": "done", "detail": ""});
    let posts = vec![
        accepted("contacting"),
        Some(refusal(503, "no_leader")),
        accepted("done"),
    ];
    let leader = Leader::start(posts, vec![json!([change("catching_up")]), json!([other])]).await;
    leader.wait(SOON).await.expect("a voter");
    let posts = leader.asked().iter().filter(|asked| asked.starts_with("POST")).count();
    assert_eq!(posts, 3);
}

#[tokio::test]
async fn a_change_that_fails_or_is_refused_ends_the_wait() {
    let leader = Leader::start(vec![accepted("contacting")], vec![json!([change("failed")])]).await;
    let failure = leader.wait(SOON).await.expect_err("it failed");
    assert!(
        matches!(&failure, Failure::No(409, "conflict", why) if why.contains("failed (d)")),
        "{failure:?}"
    );
    let leader = Leader::start(vec![Some(refusal(422, "invalid"))], Vec::new()).await;
    let failure = leader.wait(SOON).await.expect_err("refused");
    assert!(
        matches!(&failure, Failure::Client(error) if error.code() == Some("invalid")),
        "{failure:?}"
    );
    assert_eq!(leader.asked().len(), 1);
}

#[tokio::test]
async fn out_of_time_it_says_whether_the_change_may_go_on() {
    let short = Duration::from_millis(700);
    let unsettled = |failure: &Failure| matches!(failure, Failure::Unsettled(why) if why.contains("node 4 again"));
    let leader = Leader::start(vec![accepted("contacting")], vec![json!([change("catching_up")])]).await;
    let failure = leader.wait(short).await.expect_err("not in time");
    assert!(unsettled(&failure), "{failure:?}");
    assert!(
        matches!(&failure, Failure::Unsettled(why) if why.contains("catching up")),
        "{failure:?}"
    );

    // A leader that broke off may have begun.
    let leader = Leader::start(vec![None, Some(refusal(503, "no_leader"))], Vec::new()).await;
    let failure = leader.wait(short).await.expect_err("not in time");
    assert!(unsettled(&failure), "{failure:?}");

    let leader = Leader::start(vec![Some(refusal(503, "no_leader"))], Vec::new()).await;
    let begun = Instant::now();
    let failure = leader.wait(short).await.expect_err("not in time");
    assert!(begun.elapsed() < short * 2, "{:?}", begun.elapsed());
    assert!(
        matches!(&failure, Failure::Client(error) if error.to_string().contains("no_leader")),
        "nothing was begun: {failure:?}"
    );
}

#[tokio::test]
async fn each_command_asks_for_what_its_line_says() {
    for (line, answer, asked) in [
        (
            "node add 4 --client-url http://h:1 --peer-addr h:2 --no-wait",
            accepted("contacting"),
            r#"POST /v1/cluster/nodes {"id":4,"client_url":"http://h:1","peer_addr":"h:2"}"#,
        ),
        (
            "node replace 1 4 --client-url http://h:1 --peer-addr h:2",
            accepted("done"),
            r#"POST /v1/cluster/nodes {"id":4,"client_url":"http://h:1","peer_addr":"h:2","replaces":1}"#,
        ),
        ("node remove 4", Some((204, Value::Null)), "DELETE /v1/cluster/nodes/4 "),
        (
            "node transfer",
            Some((200, json!({"leader": 3}))),
            "POST /v1/cluster/transfer {}",
        ),
        (
            "node transfer --to 2",
            Some((200, json!({"leader": 2}))),
            r#"POST /v1/cluster/transfer {"to":2}"#,
        ),
        ("node list", None, "GET /v1/cluster "),
    ] {
        let leader = Leader::start(vec![answer], Vec::new()).await;
        leader.run(line).await.expect(line);
        assert_eq!(leader.asked(), [asked], "{line}");
    }
}

#[tokio::test]
async fn a_snapshot_is_asked_of_each_node_itself() {
    // Node 1 is reached where it was before, whatever it says of itself; node 2 is dead.
    let leader = Leader::start(vec![Some((202, json!({})))], Vec::new()).await;
    leader.run("node snapshot 1").await.expect("node 1 begins");
    assert_eq!(leader.asked(), ["GET /v1/cluster ", "POST /v1/cluster/snapshot "]);
    let failure = leader.run("node snapshot").await.expect_err("one is dead");
    assert!(
        matches!(&failure, Failure::No(503, "unavailable", why) if why.starts_with("node 2: ")),
        "{failure:?}"
    );
    assert_eq!(leader.asked().len(), 4, "and the other has begun");
    let failure = leader.run("node snapshot 1 9").await.expect_err("no such node");
    assert!(matches!(&failure, Failure::No(404, ..)), "{failure:?}");
}

#[test]
fn lines_that_cannot_be_meant_are_refused_before_anything_is_asked() {
    for line in [
        "node",
        "node add",
        "node add 4",
        "node add 4 --client-url http://h:1",
        "node add 4 --peer-addr h:2",
        "node add 0 --client-url http://h:1 --peer-addr h:2",
        "node add +4 --client-url http://h:1 --peer-addr h:2",
        "node add 9007199254740992 --client-url http://h:1 --peer-addr h:2",
        "node add four --client-url http://h:1 --peer-addr h:2",
        "node add 4 --client-url h:1 --peer-addr h:2",
        "node add 4 --client-url https://h:1 --peer-addr h:2",
        "node add 4 --client-url http://h:1 --peer-addr http://h:2",
        "node add 4 --client-url http://h:1 --peer-addr h",
        "node replace 1 --client-url http://h:1 --peer-addr h:2",
        "node remove",
        "node remove 1 2",
        "node remove -1",
        "node transfer 2",
        "node transfer --to x",
        "node snapshot x",
        "status 1",
    ] {
        let line = format!("quorate {line}");
        assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
    }
    for line in [
        "node add 9007199254740991 --client-url http://[::1]:1 --peer-addr h.example:2",
        "--endpoints a:1 node remove 1 --timeout 1m",
        "node snapshot",
        "status --verify",
    ] {
        let line = format!("quorate {line}");
        Cli::try_parse_from(line.split(' ')).expect(&line);
    }
}

#[tokio::test]
async fn a_node_does_not_take_its_own_place() {
    let leader = Leader::start(vec![accepted("done")], Vec::new()).await;
    let line = "node replace 4 4 --client-url http://h:1 --peer-addr h:2";
    assert!(matches!(leader.run(line).await, Err(Failure::Usage(_))));
    assert!(leader.asked().is_empty());
}
