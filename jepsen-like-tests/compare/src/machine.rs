//! The machine, as far as figures depend on it.

use std::fs::{File, read_to_string};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

/// How often a block is appended and synced, and how large it is.
const SYNCS: usize = 500;
const BLOCK: usize = 4096;
/// File systems that keep their files in memory.
const IN_MEMORY: [&str; 2] = ["tmpfs", "ramfs"];

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_mb: u64,
    pub(crate) kernel: String,
    /// Of the servers' directories: such as `ext4 on /dev/vda`.
    pub(crate) disk: String,
    /// Of 4 KiB that are appended to a file and synced.
    pub(crate) fdatasync_p50_us: f64,
    pub(crate) fdatasync_p99_us: f64,
    /// Of one, five and fifteen minutes, before anything was started.
    pub(crate) load_before: String,
}

impl Machine {
    /// # Errors
    /// If `dir` is in memory, where nothing is ever synced, or cannot be written to.
    pub(crate) fn look(dir: &Path) -> Result<Self> {
        let dir = dir
            .canonicalize()
            .with_context(|| format!("--dir {} cannot be used", dir.display()))?;
        let (device, kind) = mount_of(&dir, &read("/proc/mounts")?).unwrap_or(("?".into(), "?".into()));
        ensure!(
            !IN_MEMORY.contains(&kind.as_str()),
            "{} is a {kind}: nothing would be synced there; name a directory on a disk with --dir",
            dir.display()
        );
        let mut syncs = time_syncs(&dir)?;
        syncs.sort_unstable();
        let micros = |quantile: f64| {
            let place = ((syncs.len() - 1) as f64 * quantile).round() as usize;
            syncs[place].as_secs_f64() * 1e6
        };
        let cpus = read("/proc/cpuinfo")?;
        let memory = field(&read("/proc/meminfo")?, "MemTotal").unwrap_or_default();
        Ok(Self {
            processor: field(&cpus, "model name").unwrap_or_else(|| "unknown processor".into()),
            cores: std::thread::available_parallelism()?.get(),
            memory_mb: memory.trim_end_matches(" kB").parse::<u64>().unwrap_or(0) / 1024,
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            disk: format!("{kind} on {device}"),
            fdatasync_p50_us: micros(0.5),
            fdatasync_p99_us: micros(0.99),
            load_before: load()?,
        })
    }
}

/// The load averages of now.
pub(crate) fn load() -> Result<String> {
    let load = read("/proc/loadavg")?;
    Ok(load.split(' ').take(3).collect::<Vec<_>>().join(" "))
}

fn read(path: &str) -> Result<String> {
    read_to_string(path).with_context(|| format!("failed to read {path}"))
}

/// The value of the first line `NAME : VALUE`.
fn field(text: &str, name: &str) -> Option<String> {
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = fields.find(|(found, _)| found.trim() == name)?;
    Some(value.trim().to_owned())
}

/// Device and kind of the file system that holds `dir`: that of the longest mount point above it, and the last of
/// those that lie over each other.
fn mount_of(dir: &Path, mounts: &str) -> Option<(String, String)> {
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (device, point, kind) = (words.next()?, words.next()?, words.next()?);
        dir.starts_with(point).then_some((point.len(), device, kind))
    });
    let (_, device, kind) = mounts.max_by_key(|(length, _, _)| *length)?;
    Some((device.to_owned(), kind.to_owned()))
}

fn time_syncs(dir: &Path) -> Result<Vec<Duration>> {
    let mut file: File = tempfile::tempfile_in(dir).context("failed to make a file to sync")?;
    let block = [7; BLOCK];
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let begun = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_system_is_that_of_the_longest_mount_point() {
        let mounts = "/dev/vda / ext4 rw 0 0\nproc /proc proc rw 0 0\n/dev/vdb /var xfs rw 0 0\ntmpfs /var/tm tmpfs rw 0 0\n\
                      tmpfs /mnt tmpfs rw 0 0\n/dev/vdc /mnt ext4 rw 0 0\n";
        let of = |dir: &str| mount_of(Path::new(dir), mounts).expect("the root is there");
        assert_eq!(of("/var/tmp/x"), ("/dev/vdb".into(), "xfs".into()));
        assert_eq!(of("/home"), ("/dev/vda".into(), "ext4".into()));
        assert_eq!(
            of("/mnt/x"),
            ("/dev/vdc".into(), "ext4".into()),
            "what lies on top counts"
        );
    }

    #[test]
    fn a_directory_in_memory_is_refused_and_one_on_a_disk_is_timed() {
        if Path::new("/dev/shm").is_dir() {
            let refused = Machine::look(Path::new("/dev/shm")).expect_err("it is in memory");
            assert!(refused.to_string().contains("nothing would be synced"), "{refused}");
        }
        assert!(Machine::look(Path::new("/no/such/place")).is_err());
        let own = std::env::current_exe().expect("this program is a file");
        let machine = Machine::look(own.parent().expect("in a directory")).expect("on a disk");
        assert!(machine.fdatasync_p50_us > 0.0 && machine.fdatasync_p50_us <= machine.fdatasync_p99_us);
        assert!(machine.cores > 0 && machine.memory_mb > 0 && !machine.kernel.is_empty());
    }
}
