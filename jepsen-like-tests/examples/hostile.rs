//! Measures what a normal client notices of hostile ones, for docs/PERFORMANCE.md: the latency of sends and
//! reads and the memory of the node that is attacked, before, during and after. Three nodes, the crowd and
//! the client share this machine. What it prints is Markdown.
//!
//! ```text
//! cargo run --release --locked -p quorate-torture --example hostile
//! ```
//!
//! QUORATE_BIN names the binary. Each crowd attacks by itself, then all at once.

use std::time::{Duration, Instant};

use anyhow::Result;
use quorate_torture::cluster::Cluster;
use quorate_torture::hostile::{self, Crowd};
use quorate_torture::http::Call;
use quorate_torture::workload::messages;
use serde_json::json;

const WITHIN: Duration = Duration::from_secs(60);
/// How long is measured without a crowd.
const CALM: Duration = Duration::from_secs(10);
/// A node gives freed memory back every five seconds; what a crowd leaves is looked at after this.
const SETTLE: Duration = Duration::from_secs(8);
/// A client that asks as fast as it can would itself be most of the load.
const PAUSE: Duration = Duration::from_millis(5);

const NOBODY: Crowd = Crowd {
    silent: 0,
    heads: 0,
    bodies: 0,
    floods: 0,
};

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let cluster = Cluster::options().start().await?;
    cluster.create_room(1, "hall").await?;
    let node = cluster.leader().await?;
    println!("| crowd | sends and reads | p50 ms | p99 ms | max ms | MB before | MB at most | MB after |");
    println!("|---|---|---|---|---|---|---|---|");
    let silent = Crowd { silent: 5000, ..NOBODY };
    let drips = Crowd {
        heads: 300,
        bodies: 300,
        ..NOBODY
    };
    let floods = Crowd {
        floods: 4,
        silent: 1,
        ..NOBODY
    };
    let all = Crowd {
        silent: 5000,
        floods: 4,
        ..drips
    };
    for (name, crowd) in [
        ("nobody", NOBODY),
        ("5,000 silent connections", silent),
        ("300 heads and 300 bodies that drip", drips),
        ("4 floods of HTTP/2", floods),
        ("all of them", all),
        ("all of them again", all),
    ] {
        measure(&cluster, node, name, crowd).await?;
    }
    Ok(())
}

async fn measure(cluster: &Cluster, node: u64, name: &str, crowd: Crowd) -> Result<()> {
    let memory = async || anyhow::Ok(cluster.metric(node, "process_resident_memory_bytes").await? / 1e6);
    let before = memory().await?;
    let mut times = Vec::new();
    let mut most = before;
    let normal = async {
        let mut looked = Instant::now();
        loop {
            let text = Call::post(messages("hall"), &json!({ "text": "hello" }));
            times.push(cluster.expect(node, text, 201).await?.took);
            let page = Call::get(format!("{}?limit=10", messages("hall")));
            times.push(cluster.expect(node, page, 200).await?.took);
            if looked.elapsed() >= Duration::from_secs(1) {
                most = memory().await?.max(most);
                looked = Instant::now();
            }
            tokio::time::sleep(PAUSE).await;
        }
        #[allow(unreachable_code)]
        anyhow::Ok(())
    };
    let address = cluster.node(node).address();
    let crowd_is_there = async {
        match crowd.silent + crowd.heads + crowd.bodies + crowd.floods {
            0 => tokio::time::sleep(CALM).await,
            _ => eprintln!("{name}: {:?}", hostile::attack(address, crowd, WITHIN).await?),
        }
        anyhow::Ok(())
    };
    tokio::select! {
        gone = crowd_is_there => gone?,
        failed = normal => failed?,
    }
    tokio::time::sleep(SETTLE).await;
    let after = memory().await?;
    times.sort();
    let ms = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1000.0;
    println!(
        "| {name} | {} | {:.1} | {:.1} | {:.1} | {before:.0} | {most:.0} | {after:.0} |",
        times.len(),
        ms(0.5),
        ms(0.99),
        ms(1.0)
    );
    Ok(())
}
