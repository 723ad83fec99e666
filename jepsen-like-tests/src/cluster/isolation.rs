//! A place of its own for a run: a network and a mount namespace, which this process enters by starting
//! itself again inside them. What is made there (addresses, packet filters, mounts) nobody else sees, and
//! the kernel removes it with the last process inside, however the run ends.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::command::{exists, run};

/// Says to the process, started again, that it is inside: its own id, which stays the same when a process
/// replaces itself and which no child of it has.
const INSIDE: &str = "QUORATE_TORTURE_INSIDE";
/// Everything that runs make here lies below it, in memory, and hides what the machine has there: so that
/// names of namespaces, locks of packet filters and mount points are the run's own.
const PLACE: &str = "/run";
/// Where libraries of the nodes keep what they share with their children, and leave it when they are killed.
const SHARED_MEMORY: &str = "/dev/shm";
/// The tools that faults need, and the Debian package of each.
const TOOLS: [(&str, &str); 8] = [
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("fsfreeze", "util-linux"),
    ("findmnt", "util-linux"),
    ("mount", "mount"),
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("mkfs.ext4", "e2fsprogs"),
];

/// That this process is inside. One cluster at a time may live here.
#[derive(Debug, Clone)]
pub struct Isolation {
    folder: PathBuf,
}

impl Isolation {
    /// Where a cluster may keep its files and mount its disks. Gone with the last process inside.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Starts this process again inside, with the same arguments and the same process id, where it then goes
/// on here and gets its `Isolation`. To be called before there are threads or children: they do not come
/// along. An error says why it is not permitted; then nothing has changed.
pub fn enter() -> Result<Isolation> {
    if std::env::var(INSIDE).is_ok_and(|id| id == std::process::id().to_string()) {
        return furnish();
    }
    permitted()?;
    let own = std::env::current_exe().context("this program cannot find itself")?;
    let failed = Command::new("unshare")
        .args(["--net", "--mount", "--propagation", "private", "--"])
        .arg(own)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, std::process::id().to_string())
        .exec();
    Err(failed).context("failed to start again in a namespace")
}

/// Whether this process may have namespaces, and has the tools for what is done there.
fn permitted() -> Result<()> {
    if let Some((tool, package)) = TOOLS.into_iter().find(|(tool, _)| !exists(tool)) {
        bail!("{tool} is missing (Debian package {package})");
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("only root may make network namespaces and loop mounts");
    }
    let tried = Command::new("unshare")
        .args(["--net", "--mount", "--propagation", "private", "true"])
        .stdin(Stdio::null())
        .output()?;
    if !tried.status.success() {
        bail!("no namespaces here: {}", String::from_utf8_lossy(&tried.stderr).trim());
    }
    Ok(())
}

fn furnish() -> Result<Isolation> {
    let folder = Path::new(PLACE).join("quorate-torture");
    // A second call finds everything made.
    if !folder.is_dir() {
        for place in [PLACE, SHARED_MEMORY] {
            run("mount", &["-t", "tmpfs", "quorate-torture", place])?;
        }
        std::fs::create_dir_all(Path::new(PLACE).join("netns"))?;
        std::fs::create_dir_all(&folder)?;
        run("ip", &["link", "set", "lo", "up"])?;
    }
    Ok(Isolation { folder })
}

/// For tests: runs the test of this name inside, in a process of its own, unless this is that process.
/// None: it was done there, or skipped out loud; there is nothing left to do here.
pub fn inside_test(name: &str) -> Option<Isolation> {
    const WANTED: &str = "QUORATE_TORTURE_TEST";
    if std::env::var(WANTED).is_ok_and(|wanted| wanted == name) {
        return Some(enter().expect("the process that started this one has tried"));
    }
    if let Err(why) = permitted() {
        eprintln!("SKIPPED {name}: {why:#}");
        return None;
    }
    let own = std::env::current_exe().expect("a test knows where it is");
    let status = super::process::tied_to_this_process(own.as_os_str())
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(WANTED, name)
        .status()
        .expect("a test can be started");
    assert!(status.success(), "{name}, in namespaces of its own: {status}");
    None
}
