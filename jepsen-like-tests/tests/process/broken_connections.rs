//! Requests that no HTTP library would send. They fail below routing, so a bare 4xx or a closed
//! connection will do; but they change nothing, hold nothing for long, and the node goes on.

use std::time::Duration;

use futures::future::join_all;
use quorate_torture::cluster::Cluster;
use quorate_torture::http::Call;
use quorate_torture::raw::{RawAnswer, exchange};

/// Longer than a node gives to a request that does not go on.
const CLOSED_WITHIN: Duration = Duration::from_secs(40);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_requests_are_closed_and_change_nothing() {
    let cluster = Cluster::options().start().await.unwrap();
    cluster.create_room(1, "hall").await.unwrap();
    let node = cluster.leader().await.unwrap();
    let address = cluster.node(node).address();
    let before = cluster.expect(node, Call::get("/v1/users"), 200).await.unwrap();

    let requests = broken_requests();
    let attempts = join_all(
        requests
            .iter()
            .map(|(_, bytes)| exchange(address, bytes, CLOSED_WITHIN)),
    );
    // While they hang there, others are served.
    let served = async {
        for _ in 0..20 {
            cluster.expect(node, Call::get("/v1/users"), 200).await.unwrap();
            cluster.wait_writable(node, "hall").await.unwrap();
        }
    };
    let (answers, ()) = tokio::join!(attempts, served);
    for ((what, _), answer) in requests.iter().zip(answers) {
        let answer = answer.unwrap();
        println!("{what}: {:?} after {:?}", answer.status(), answer.took);
        assert_refused(what, &answer);
    }
    for path in ["/v1/users", "/v1/rooms"] {
        let after = cluster
            .expect(node, Call::get(path), 200)
            .await
            .unwrap()
            .json()
            .unwrap()
            .to_string();
        assert!(!after.contains("smuggled"), "{after}");
    }
    let after = cluster.expect(node, Call::get("/v1/users"), 200).await.unwrap();
    assert_eq!(after.json().unwrap(), before.json().unwrap());
    assert!(cluster.ids().iter().all(|id| cluster.node(*id).process().runs()));
}

#[track_caller]
fn assert_refused(what: &str, answer: &RawAnswer) {
    assert!(
        answer.closed,
        "{what}: still open after {:?}: {}",
        answer.took,
        answer.text()
    );
    if !answer.bytes.is_empty() {
        let status = answer.status();
        assert!(
            status.is_some_and(|status| (400..500).contains(&status)),
            "{what}: {}",
            answer.text()
        );
    }
}

fn broken_requests() -> Vec<(&'static str, Vec<u8>)> {
    let post = |headers: &str, body: &str| {
        format!("POST /v1/users HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{headers}\r\n\r\n{body}")
            .into_bytes()
    };
    let flood = |count: usize| -> String {
        (0..count)
            .map(|number| format!("X-Flood-{number}: {number}\r\n"))
            .collect()
    };
    vec![
        (
            "two Content-Lengths",
            post("Content-Length: 19\r\nContent-Length: 20", r#"{"user":"smuggled"}x"#),
        ),
        (
            "a list of Content-Lengths",
            post("Content-Length: 19, 20", r#"{"user":"smuggled"}x"#),
        ),
        (
            "a negative Content-Length",
            post("Content-Length: -19", r#"{"user":"smuggled"}"#),
        ),
        (
            "a Content-Length beyond all numbers",
            post("Content-Length: 99999999999999999999999", r#"{"user":"smuggled"}"#),
        ),
        (
            "a chunk without a size",
            post(
                "Transfer-Encoding: chunked",
                "zz\r\n{\"user\":\"smuggled\"}\r\n0\r\n\r\n",
            ),
        ),
        (
            "an unknown transfer coding",
            post("Transfer-Encoding: smoke", r#"{"user":"smuggled"}"#),
        ),
        (
            "a line feed in a header",
            b"GET /v1/users HTTP/1.1\r\nHost: x\r\nX-A: b\x00c\r\n\r\n".to_vec(),
        ),
        (
            "garbage",
            (0..4096_u32)
                .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8 | 0x80)
                .chain(*b"\r\n\r\n")
                .collect(),
        ),
        ("words", b"hello there\r\n\r\n".to_vec()),
        (
            "the beginning of TLS",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00\r\n\r\n".to_vec(),
        ),
        (
            "an unknown version",
            b"GET /v1/users HTTP/7.3\r\nHost: x\r\n\r\n".to_vec(),
        ),
        (
            "ten thousand headers",
            format!("GET /v1/users HTTP/1.1\r\nHost: x\r\n{}\r\n", flood(10_000)).into_bytes(),
        ),
        (
            "a header of a megabyte",
            format!("GET / HTTP/1.1\r\nHost: x\r\nX-A: {}\r\n\r\n", "a".repeat(1 << 20)).into_bytes(),
        ),
        (
            "a path of a megabyte",
            format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(1 << 20)).into_bytes(),
        ),
        (
            "half a head",
            b"POST /v1/users HTTP/1.1\r\nHost: x\r\nContent-".to_vec(),
        ),
        ("half a body", post("Content-Length: 400", r#"{"user":"smuggled"}"#)),
        (
            "half a chunk",
            post("Transfer-Encoding: chunked", "ff\r\n{\"user\":\"smuggled\"}"),
        ),
        ("silence", Vec::new()),
    ]
}
