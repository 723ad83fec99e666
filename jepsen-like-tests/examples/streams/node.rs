//! What the system says of a node's process.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::unistd::{SysconfVar, sysconf};
use quorate_torture::cluster::Cluster;

/// A running node's process.
pub(crate) struct Node {
    pid: u32,
    ticks_per_second: f64,
}

impl Node {
    pub(crate) fn of(cluster: &Cluster, id: u64) -> Result<Self> {
        let ticks = sysconf(SysconfVar::CLK_TCK)?.context("the system has no clock ticks")?;
        Ok(Self {
            pid: cluster.node(id).process().id().context("the node was started")?,
            ticks_per_second: ticks as f64,
        })
    }

    /// In the kernel and outside of it, of all threads, since the start.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        // The name in brackets may hold anything.
        let (_, rest) = stat.rsplit_once(')').context("a process has a name")?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let ticks = |field: usize| anyhow::Ok(fields.get(field).context("the line is too short")?.parse::<u64>()?);
        // Fields 14 and 15 of proc(5); the state, the third one, is the first here.
        Ok(Duration::from_secs_f64(
            (ticks(11)? + ticks(12)?) as f64 / self.ticks_per_second,
        ))
    }

    /// Bytes that are resident.
    pub(crate) fn memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        Ok(kib.context("no VmRSS")?.trim().parse::<u64>()? * 1024)
    }
}
