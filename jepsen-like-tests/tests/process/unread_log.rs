//! Nobody reads what a node logs: a terminal that was stopped, a collector that hangs. The node serves on.

use std::fs::{File, OpenOptions};
use std::io::Read;
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
    cluster.transfer(unread, Some(unread)).await.unwrap();

    // Each write leaves some lines. It would be the last one if the node waited for its log.
    eventually("lines are dropped", SOON, async || {
        cluster.wait_writable(unread, "hall").await?;
        let dropped = cluster.metric(unread, "quorate_stderr_lines_dropped_total").await?;
        ensure!(dropped > 0.0, "none was");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(cluster.leader().await.unwrap(), unread);

    let status = cluster.terminate(unread, SOON).await.unwrap();
    assert_eq!(status.code(), Some(0), "{status}");
    let mut lines = Vec::new();
    // When all is read there is no end: this test itself could write.
    let end = pipe.read_to_end(&mut lines).unwrap_err();
    assert_eq!(end.kind(), std::io::ErrorKind::WouldBlock);
    assert!(
        lines.starts_with(b"{\"timestamp\":"),
        "{}",
        String::from_utf8_lossy(&lines[..200])
    );
}

/// It is open for reading, so that the node can open it for writing. The kernel keeps 64 KiB of what nobody reads.
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
