//! Accounts enforced on a real cluster: who signed in at one node is known to all, also when nodes die and logs
//! are cut; and whose session has ended is refused by all, streams included.

use std::process::Stdio;
use std::time::Duration;

use quorate_torture::cli::{Output, finish, run};
use quorate_torture::cluster::{Cluster, JOIN_TIMEOUT, Newcomer, node_of};
use quorate_torture::http::{Answer, Call};
use quorate_torture::stream::Stream;
use quorate_torture::wait::eventually;
use quorate_torture::workload::messages;
use reqwest::Method;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

use crate::SOON;

const ROOT_TOKEN: &str = "root-0123456789-0123456789-0123456789";
const PASSWORD: &str = "correct horse battery staple";
const STREAM: &str = "/v1/rooms/hall/stream";
/// Well before a stream would ask by itself, which it does every 10 s.
const AT_ONCE: Duration = Duration::from_secs(5);
/// A command may go on asking for as long as its own time-out, 30 s.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(40);

/// A cluster that enforces accounts, and the folder of root's token.
struct Guarded {
    cluster: Cluster,
    folder: TempDir,
}

impl Guarded {
    /// With user ann, who has a password, and the public room `hall`.
    async fn start(args: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("root-token");
        std::fs::write(&file, format!("{ROOT_TOKEN}\n")).unwrap();
        let accounts = ["--auth", "on", "--root-token-file", file.to_str().unwrap()];
        let options = Cluster::options().serve_args(&[&accounts, args].concat());
        let cluster = options.start().await.unwrap();
        let this = Self { cluster, folder };
        let ann = json!({ "user": "ann", "password": PASSWORD });
        this.expect(1, by(ROOT_TOKEN, Call::post("/v1/users", &ann)), 201).await;
        let hall = json!({ "room": "hall", "kind": "public" });
        this.expect(1, by(ROOT_TOKEN, Call::post("/v1/rooms", &hall)), 201)
            .await;
        this
    }

    async fn expect(&self, node: u64, call: Call, status: u16) -> Answer {
        self.cluster.expect(node, call, status).await.unwrap()
    }

    /// Ann's new token. The nodes may still be agreeing on a version that has sessions, and verify one password
    /// at a time.
    async fn sign_in(&self, node: u64, password: &str) -> String {
        let body = json!({ "user": "ann", "password": password });
        let answer = eventually("ann is signed in", SOON, async || {
            match self.cluster.send(node, Call::post("/v1/sessions", &body)).await {
                Ok(answer) if answer.status == 201 => Ok(answer),
                Ok(answer) => Err(answer.to_string()),
                Err(error) => Err(error.to_string()),
            }
        });
        let session = answer.await.unwrap().json().unwrap();
        assert_eq!(session["user"], "ann");
        session["token"].as_str().unwrap().to_owned()
    }

    /// The node reads and writes for the holder of the token.
    async fn expect_known(&self, node: u64, token: &str) {
        self.expect(node, by(token, Call::get("/v1/rooms")), 200).await;
        let sent = self.expect(node, by(token, say("hello")), 201).await;
        assert_eq!(sent.json().unwrap()["sender"], "ann", "node {node}");
    }

    /// Every node refuses the token, at its first request.
    async fn expect_refused_everywhere(&self, token: &str) {
        for node in self.cluster.ids() {
            for call in [
                Call::get("/v1/rooms"),
                say("never"),
                Call::get(STREAM),
                Call::new(Method::DELETE, "/v1/sessions/current"),
            ] {
                let refused = self.expect(node, by(token, call), 401).await;
                assert_eq!(refused.code(), "unauthenticated", "node {node}");
            }
        }
    }

    /// A stream on every node, each past its first event.
    async fn streams(&self, token: &str) -> Vec<Stream> {
        let mut streams = Vec::new();
        for node in self.cluster.ids() {
            let url = self.cluster.node(node).url();
            let opened = Stream::open(self.cluster.http(), &url, by(token, Call::get(STREAM))).await;
            let mut stream = opened
                .unwrap()
                .unwrap_or_else(|refused| panic!("node {node}: {refused}"));
            stream.next_named("bookmark", SOON).await.unwrap().unwrap();
            streams.push(stream);
        }
        streams
    }

    async fn cli(&self, args: &[&str], token: Option<&str>, input: &str) -> Output {
        let mut command = self.cluster.cli(args);
        if let Some(token) = token {
            command.env("QUORATE_TOKEN", token);
        }
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        // A command that reads nothing may have ended by now.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes()).await;
        finish(child, COMMAND_TIMEOUT).await.unwrap()
    }
}

fn by(token: &str, call: Call) -> Call {
    call.header("Authorization", format!("Bearer {token}"))
}

fn say(text: &str) -> Call {
    Call::post(messages("hall"), &json!({ "text": text }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_good_on_every_node_whatever_happens_to_them_until_it_ends() {
    let guarded = Guarded::start(&["--log-bytes-max", "1048576"]).await;
    let cluster = &guarded.cluster;
    for node in cluster.ids() {
        guarded.expect(node, Call::get("/v1/rooms"), 401).await;
        guarded.expect(node, say("nobody").as_user("ann"), 401).await;
        guarded.expect(node, Call::get("/v1/cluster").as_user("ann"), 401).await;
        guarded.expect(node, Call::get("/metrics"), 200).await;
    }
    let token = guarded.sign_in(1, PASSWORD).await;
    for node in [2, 3, 1] {
        guarded.expect_known(node, &token).await;
    }
    let snapshot = Call::post("/v1/cluster/snapshot", &json!({}));
    guarded.expect(2, by(&token, snapshot.clone()), 403).await;
    for node in cluster.ids() {
        guarded.expect(node, by(ROOT_TOKEN, snapshot.clone()), 202).await;
    }

    let leader = cluster.leader().await.unwrap();
    cluster.kill(leader).await.unwrap();
    cluster.leader_after(leader).await.unwrap();
    for node in cluster.others(leader) {
        guarded.expect_known(node, &token).await;
    }
    let during = guarded.sign_in(cluster.others(leader)[0], PASSWORD).await;
    cluster.restart(leader).unwrap();
    cluster.wait_all_ready().await.unwrap();
    for node in cluster.ids() {
        guarded.expect_known(node, &during).await;
    }
    cluster.kill_together(&cluster.ids()).await.unwrap();
    cluster.start_all().unwrap();
    cluster.wait_all_ready().await.unwrap();
    for node in cluster.ids() {
        guarded.expect_known(node, &token).await;
    }

    // Over at one node is over at all, from the first request on; the other session stays.
    guarded
        .expect(3, by(&token, Call::new(Method::DELETE, "/v1/sessions/current")), 204)
        .await;
    guarded.expect_refused_everywhere(&token).await;
    guarded.expect_known(2, &during).await;
    // Each node was asked for a write that it refused; none of them has happened.
    let page = guarded
        .expect(
            1,
            by(ROOT_TOKEN, Call::get(format!("{}?limit=500", messages("hall")))),
            200,
        )
        .await;
    assert!(!String::from_utf8_lossy(&page.body).contains("never"));
    for node in cluster.ids() {
        let text = cluster.node(node).process().log_tail(1 << 20);
        for secret in [token.as_str(), during.as_str(), ROOT_TOKEN, PASSWORD] {
            assert!(!text.contains(secret), "node {node} has logged a secret");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_streams_end_on_every_node_with_their_session() {
    let guarded = Guarded::start(&[]).await;
    let (first, second) = (guarded.sign_in(1, PASSWORD).await, guarded.sign_in(2, PASSWORD).await);
    let (mut of_first, mut of_second) = (guarded.streams(&first).await, guarded.streams(&second).await);

    guarded
        .expect(2, by(&first, Call::new(Method::DELETE, "/v1/sessions/current")), 204)
        .await;
    for stream in &mut of_first {
        assert_eq!(stream.next(AT_ONCE).await.unwrap(), None, "no last words");
    }
    guarded.expect(1, by(&second, say("for those who are left")), 201).await;
    for stream in &mut of_second {
        let event = stream.next_named("message", SOON).await.unwrap().unwrap();
        assert_eq!(event.data["text"], "for those who are left");
    }

    // A new password leaves the session that changes it, and no other.
    let third = guarded.sign_in(3, PASSWORD).await;
    let mut of_third = guarded.streams(&third).await;
    let patch = Call::new(Method::PATCH, "/v1/users/ann").json(&json!({ "password": "another one" }));
    guarded.expect(1, by(&third, patch), 200).await;
    for stream in &mut of_second {
        assert_eq!(stream.next(AT_ONCE).await.unwrap(), None, "no last words");
    }
    guarded.expect_refused_everywhere(&second).await;
    guarded.expect(2, by(&third, say("still here")), 201).await;
    for stream in &mut of_third {
        let event = stream.next_named("message", SOON).await.unwrap().unwrap();
        assert_eq!(event.data["text"], "still here");
    }
    let old = json!({ "user": "ann", "password": PASSWORD });
    guarded.expect(1, Call::post("/v1/sessions", &old), 401).await;
    guarded.sign_in(2, "another one").await;
}

/// Nobody has to ask: the cluster notices by its own clock, and the streams end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_expires_by_the_clusters_clock() {
    let guarded = Guarded::start(&["--session-ttl", "2s"]).await;
    let token = guarded.sign_in(1, PASSWORD).await;
    let mut streams = guarded.streams(&token).await;
    for stream in &mut streams {
        while let Some(event) = stream.next(SOON).await.unwrap() {
            assert_eq!(event.name, "bookmark", "no last words");
        }
    }
    guarded.expect_refused_everywhere(&token).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_signs_in_and_out() {
    let guarded = Guarded::start(&[]).await;
    let create = ["user", "create", "bob", "--password-stdin"];
    assert_eq!(
        guarded.cli(&create, None, "bob's\n").await.code,
        Some(1),
        "without a token"
    );
    let created = guarded.cli(&create, Some(ROOT_TOKEN), "bob's\n").await;
    assert_eq!(created.code, Some(0), "{created:?}");
    assert!(guarded.folder.path().join("root-token").exists());

    let wrong = guarded.cli(&["login", "bob"], None, "alice's\n").await;
    assert_eq!((wrong.code, wrong.stdout.as_str()), (Some(1), ""), "{wrong:?}");
    assert!(!wrong.stderr.contains("alice's"), "{wrong:?}");
    assert_eq!(guarded.cli(&["login", "bob"], None, "").await.code, Some(2));
    // A token that has ended does not stand in the way of a new one.
    let stale = format!("qst_{}", "0".repeat(64));
    let signed_in = eventually("bob is signed in", SOON, async || {
        let output = guarded
            .cli(&["login", "bob", "--device", "test"], Some(&stale), "bob's\n")
            .await;
        if output.code == Some(0) {
            Ok(output)
        } else {
            Err(format!("{output:?}"))
        }
    });
    let token = signed_in.await.unwrap().stdout.trim_end().to_owned();
    assert!(token.starts_with("qst_") && !token.contains('\n'), "{token}");

    let sent = guarded
        .cli(&["send", "hall", "hello", "--output", "json"], Some(&token), "")
        .await;
    assert_eq!(sent.code, Some(0), "{sent:?}");
    let status = guarded.cli(&["status"], Some(&token), "").await;
    assert_eq!(status.code, Some(0), "{status:?}");
    let transfer = guarded.cli(&["node", "transfer"], Some(&token), "").await;
    assert_eq!(transfer.code, Some(1), "{transfer:?}");
    let transfer = guarded.cli(&["node", "transfer"], Some(ROOT_TOKEN), "").await;
    assert_eq!(transfer.code, Some(0), "{transfer:?}");

    assert_eq!(guarded.cli(&["logout"], None, "").await.code, Some(2));
    let out = guarded.cli(&["logout"], Some(&token), "").await;
    assert_eq!((out.code, out.stdout.as_str()), (Some(0), "signed out\n"), "{out:?}");
    assert_eq!(
        guarded.cli(&["send", "hall", "again"], Some(&token), "").await.code,
        Some(1)
    );
    assert_eq!(guarded.cli(&["logout"], Some(&token), "").await.code, Some(1));
}

/// It asks to be taken in as root: the nodes have his token.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_joins_a_cluster_that_enforces_accounts() {
    let guarded = Guarded::start(&[]).await;
    let token = guarded.sign_in(1, PASSWORD).await;
    guarded.cluster.start_new(&Newcomer::new(4)).await.unwrap();
    eventually("the new node votes", JOIN_TIMEOUT, async || {
        let answer = guarded.cluster.send(1, by(ROOT_TOKEN, Call::get("/v1/cluster"))).await;
        let members = answer
            .map_err(|error| error.to_string())?
            .json()
            .map_err(|error| error.to_string())?;
        match node_of(&members, 4) {
            Some(node) if node["role"] == "voter" => Ok(()),
            _ => Err(members.to_string()),
        }
    })
    .await
    .unwrap();
    guarded.cluster.wait_ready(&[4]).await.unwrap();
    guarded.expect_known(4, &token).await;
}

/// Without accounts anyone who reaches a node is its administrator, so it hides.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_accounts_or_without_roots_token_does_not_open_its_door() {
    // Not started: only its command line is wanted.
    let guarded = Guarded::start(&[]).await;
    let data = guarded.folder.path().join("node");
    let serve = |more: &[&str]| {
        let (addr, v) = ("0.0.0.0:0", "1=127.0.0.1:1=http://127.0.0.1:2");
        let data = data.to_str().unwrap();
        let args = [
            "serve",
            "--id",
            "1",
            "--data-dir",
            data,
            "--client-addr",
            addr,
            "--initial-cluster",
            v,
        ];
        let more = [&args, ["--peer-addr", "127.0.0.1:0"].as_slice(), more].concat();
        run(guarded.cluster.bare_cli(&more), COMMAND_TIMEOUT)
    };
    let open = serve(&[]).await.unwrap();
    assert_eq!(open.code, Some(2), "{open:?}");
    assert!(
        open.stderr.contains("--auth on") && open.stderr.contains("--insecure-listen"),
        "{open:?}"
    );
    let no_root = serve(&["--auth", "on"]).await.unwrap();
    assert_eq!(no_root.code, Some(2), "{no_root:?}");
    assert!(no_root.stderr.contains("root-token-file"), "{no_root:?}");
    assert!(!data.exists(), "nothing was touched");
}
