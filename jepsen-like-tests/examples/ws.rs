//! Measures acknowledged messages a second over WebSockets beside plain HTTP, for docs/PERFORMANCE.md. Three nodes and
//! the clients share this machine, and all clients talk to the leader. What it prints is Markdown.
//!
//! ```text
//! cargo run --release --locked -p quorate-torture --example ws [SECONDS]
//! ```
//!
//! QUORATE_BIN names the binary.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::future::{FutureExt, try_join_all};
use futures::{SinkExt, StreamExt};
use quorate_torture::cluster::Cluster;
use quorate_torture::http::Call;
use quorate_torture::workload::messages;
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

/// Of each message's text.
const TEXT_BYTES: usize = 256;
/// Before it is counted.
const WARM_UP: Duration = Duration::from_secs(1);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let seconds = std::env::args().nth(1).map_or(Ok(5), |text| text.parse())?;
    let cluster = Cluster::options().start().await?;
    cluster.create_room(1, "hall").await?;
    let window = Window::of(Duration::from_secs(seconds));
    println!("| senders | messages/s | p50 ms | p99 ms |");
    println!("|---|---|---|---|");
    for clients in [1, 64, 256] {
        report(
            &format!("HTTP, {clients} clients"),
            over_http(&cluster, clients, &window).await?,
            &window,
        );
    }
    for (sockets, in_flight) in [(1, 1), (1, 256), (64, 1), (64, 4), (64, 16)] {
        let name = format!("{sockets} sockets with {in_flight} in flight each");
        report(
            &name,
            over_sockets(&cluster, sockets, in_flight, &window).await?,
            &window,
        );
    }
    Ok(())
}

/// What is counted of a run.
struct Window {
    lasts: Duration,
}

impl Window {
    fn of(lasts: Duration) -> Self {
        Self { lasts }
    }

    fn end(&self, begun: Instant) -> Instant {
        begun + WARM_UP + self.lasts
    }
}

/// How long each acknowledged message took, of those that were answered in the window.
type Times = Vec<Duration>;

fn report(name: &str, mut times: Times, window: &Window) {
    times.sort();
    let ms = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1000.0;
    let rate = times.len() as f64 / window.lasts.as_secs_f64();
    println!("| {name} | {rate:.0} | {:.1} | {:.1} |", ms(0.5), ms(0.99));
}

async fn over_http(cluster: &Cluster, clients: usize, window: &Window) -> Result<Times> {
    let node = cluster.leader().await?;
    let (url, http) = (cluster.node(node).url(), cluster.http());
    let begun = Instant::now();
    let all = try_join_all((0..clients).map(|_| {
        let (url, http, end) = (url.clone(), http.clone(), window.end(begun));
        let client = async move {
            let mut times = Times::new();
            while Instant::now() < end {
                let call = Call::post(messages("hall"), &json!({"text": "x".repeat(TEXT_BYTES)}));
                let answer = http.send(&url, call).await?.expect_status(201)?;
                if begun.elapsed() > WARM_UP {
                    times.push(answer.took);
                }
            }
            anyhow::Ok(times)
        };
        tokio::spawn(client).map(|joined| joined.context("a client panicked")?)
    }));
    Ok(all.await?.concat())
}

async fn over_sockets(cluster: &Cluster, sockets: usize, in_flight: usize, window: &Window) -> Result<Times> {
    let node = cluster.leader().await?;
    let address = cluster.node(node).address();
    let begun = Instant::now();
    let all = try_join_all((0..sockets).map(|_| {
        let end = window.end(begun);
        let client = async move {
            let socket = TcpStream::connect(address).await?;
            socket.set_nodelay(true)?;
            let (stream, _) = client_async(format!("ws://{address}/v1/ws"), socket).await?;
            one_socket(stream, in_flight, begun, end).await
        };
        tokio::spawn(client).map(|joined| joined.context("a socket's client panicked")?)
    }));
    Ok(all.await?.concat())
}

#[derive(Deserialize)]
struct Head<'a> {
    id: Option<&'a str>,
    #[serde(rename = "type")]
    type_: &'a str,
}

/// Whatever is answered is followed by another message under the same id; those that were answered together go out
/// together.
async fn one_socket(
    mut stream: WebSocketStream<TcpStream>,
    in_flight: usize,
    begun: Instant,
    end: Instant,
) -> Result<Times> {
    let text = "x".repeat(TEXT_BYTES);
    let frame = |id: usize| {
        Message::text(format!(
            r#"{{"id":"{id}","type":"send","room":"hall","text":"{text}"}}"#
        ))
    };
    let hello = stream.next().await.context("no hello")??;
    anyhow::ensure!(hello.to_text()?.contains(r#""type":"hello""#), "{hello:?}");
    let mut since = vec![Instant::now(); in_flight];
    let mut times = Times::new();
    let mut open = in_flight;
    for id in 0..in_flight {
        stream.feed(frame(id)).await?;
    }
    while open > 0 {
        stream.flush().await?;
        let mut next = stream.next().await;
        loop {
            let answer = next.context("the node has ended the socket")??;
            if let Message::Text(answer) = answer {
                let Head {
                    id: Some(id),
                    type_: "sent",
                } = serde_json::from_str(&answer)?
                else {
                    bail!("not sent: {answer}");
                };
                let id: usize = id.parse()?;
                let now = Instant::now();
                if now > begun + WARM_UP && now < end {
                    times.push(now - since[id]);
                }
                if now < end {
                    since[id] = now;
                    stream.feed(frame(id)).await?;
                } else {
                    open -= 1;
                }
            }
            match stream.next().now_or_never() {
                Some(more) => next = more,
                None => break,
            }
        }
    }
    Ok(times)
}
