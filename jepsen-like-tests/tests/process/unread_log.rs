//! Nobody reads what a node logs: a terminal that was stopped, a collector that hangs. The node serves on.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Result, ensure};
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use quorate_torture::cluster::Cluster;
use quorate_torture::wait::eventually;

use crate::SOON;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_serves_on_while_nobody_reads_what_it_logs() {
    let verbose = ["--log-filter", "debug"];
    let cluster = Cluster::options().serve_args(&verbose).start().await.unwrap();
    cluster.create_room(1, "hall").await.unwrap();
    cluster.wait_writable(1, "hall").await.unwrap();
    let unread = 1;
    cluster.terminate(unread, SOON).await.unwrap();
    let mut pipe = pipe_in_place_of_log(&cluster, unread).unwrap();
    cluster.restart(unread).unwrap();
    cluster.wait_ready(&[unread]).await.unwrap();
    assert_eq!(cluster.transfer(unread, Some(unread)).await.unwrap(), unread);

    // Each write leaves some lines. It would be the last one if the node waited for its log.
    eventually("lines are dropped", SOON, async || {
        cluster.wait_writable(unread, "hall").await?;
        let dropped = cluster.metric(unread, "quorate_stderr_lines_dropped_total").await?;
        ensure!(dropped > 0.0, "none was");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(cluster.transfer(unread, Some(unread)).await.unwrap(), unread);
    cluster.wait_writable(unread, "hall").await.unwrap();

    // Read again, the log says that there is a gap.
    let mut lines = Vec::new();
    eventually("the gap is told", SOON, async || {
        read_what_there_is(&mut pipe, &mut lines);
        let told = String::from_utf8_lossy(&lines).contains("log lines were dropped");
        ensure!(told, "{} bytes do not say so", lines.len());
        Ok(())
    })
    .await
    .unwrap();

    let status = cluster.terminate(unread, SOON).await.unwrap();
    assert_eq!(status.code(), Some(0), "{status}");
    let start = &lines[..lines.len().min(200)];
    assert!(
        start.starts_with(b"{\"timestamp\":"),
        "{}",
        String::from_utf8_lossy(start)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_cannot_go_on_ends_though_nobody_reads_why() {
    let cluster = Cluster::options().start().await.unwrap();
    let unread = 1;
    cluster.terminate(unread, SOON).await.unwrap();
    let mut pipe = pipe_in_place_of_log(&cluster, unread).unwrap();
    let full = std::iter::repeat_with(|| pipe.write(&[b'.'; 4096])).find_map(Result::err);
    assert_eq!(full.unwrap().kind(), ErrorKind::WouldBlock);

    let _taken = TcpListener::bind(cluster.node(unread).address()).unwrap();
    cluster.restart(unread).unwrap();
    let status = cluster.node(unread).process().wait_end(SOON).await.unwrap();
    assert_eq!(status.code(), Some(1), "{status}");
}

/// There is no end: this test itself could write.
fn read_what_there_is(pipe: &mut File, lines: &mut Vec<u8>) {
    let end = pipe.read_to_end(lines).unwrap_err();
    assert_eq!(end.kind(), ErrorKind::WouldBlock);
}

/// The test holds it open for reading, too, and does not read. The kernel then keeps usually 64 KiB.
fn pipe_in_place_of_log(cluster: &Cluster, id: u64) -> Result<File> {
    let node = cluster.node(id);
    let path = node.process().log_path();
    std::fs::remove_file(path)?;
    mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)?;
    let pipe = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)?;
    Ok(pipe)
}
