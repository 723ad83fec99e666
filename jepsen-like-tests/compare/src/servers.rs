//! The processes of one system, with a directory for them: gone when they are dropped, and also when this process
//! dies in whatever way.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use quorate_torture::cluster::Process;
use tempfile::TempDir;

/// From the start of a system until it can be used. Generous: a disk may be busy.
pub(crate) const READY_WITHIN: Duration = Duration::from_secs(60);
/// How much is shown of the log of a server that has ended.
const TAIL_BYTES: u64 = 4 << 10;

// The order of the fields is that of their end: processes first.
#[derive(Debug)]
pub(crate) struct Servers {
    processes: Vec<(String, Process)>,
    folder: TempDir,
}

impl Servers {
    /// None yet, with a new directory in `dir`.
    pub(crate) fn new(name: &str, dir: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix(&format!("quorate-compare-{name}-"))
            .tempdir_in(dir)
            .with_context(|| format!("failed to make a directory in {}", dir.display()))?;
        Ok(Self {
            processes: Vec::new(),
            folder,
        })
    }

    /// A path in the directory of them all.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn start(&mut self, name: &str, binary: &Path, args: Vec<String>) -> Result<()> {
        let process = Process::new(binary.to_owned(), args, self.path(&format!("{name}.log")));
        process.start()?;
        self.processes.push((name.to_owned(), process));
        Ok(())
    }

    pub(crate) fn ids(&self) -> Vec<u32> {
        self.processes.iter().filter_map(|(_, process)| process.id()).collect()
    }

    /// # Errors
    /// When one of them has ended, with what it said last.
    pub(crate) fn check(&self) -> Result<()> {
        for (name, process) in &self.processes {
            if let Some(status) = process.ended() {
                bail!(
                    "{name} has ended ({status}); its log:\n{}",
                    process.log_tail(TAIL_BYTES)
                );
            }
        }
        Ok(())
    }
}

/// So many ports of loopback that are free now. Somebody else may take one before it is used: then its server ends
/// and says so.
pub(crate) fn free_ports(count: usize) -> Result<Vec<u16>> {
    let bind = |_| TcpListener::bind("127.0.0.1:0");
    let held = (0..count).map(bind).collect::<Result<Vec<_>, _>>()?;
    held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

/// `named`, or the program of this name on the PATH.
pub(crate) fn find(named: Option<&Path>, name: &str) -> Result<PathBuf> {
    if let Some(named) = named {
        return named
            .canonicalize()
            .with_context(|| format!("there is no {}", named.display()));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian puts servers where an ordinary user does not look.
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let mut folders = std::env::split_paths(&path).chain(more);
    folders
        .find_map(|folder| Some(folder.join(name)).filter(|file| file.is_file()))
        .with_context(|| format!("{name} is not installed: cluster-scripts/compare installs it, --only leaves it out"))
}

/// What the program says of its version: the last word of the first line.
pub(crate) async fn version(binary: &Path) -> Result<String> {
    let asked = tokio::process::Command::new(binary)
        .arg("--version")
        .kill_on_drop(true)
        .stdin(std::process::Stdio::null())
        .output();
    let output = tokio::time::timeout(READY_WITHIN, asked)
        .await
        .with_context(|| format!("{} --version does not end", binary.display()))?
        .with_context(|| format!("failed to run {}", binary.display()))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let first = said.lines().next().unwrap_or_default();
    let word = first.split_whitespace().last();
    let word = word.with_context(|| format!("{} tells no version", binary.display()))?;
    Ok(word.trim_start_matches('v').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_distinct() {
        let ports = free_ports(6).expect("ports are free");
        assert_eq!(ports.iter().collect::<std::collections::BTreeSet<_>>().len(), 6);
    }

    #[test]
    fn a_program_is_found_or_it_is_said_how_to_get_it() {
        assert!(find(None, "sh").expect("every system has it").is_file());
        let missing = find(None, "no-such-program-here")
            .expect_err("there is none")
            .to_string();
        assert!(missing.contains("cluster-scripts/compare"), "{missing}");
        assert!(find(Some(Path::new("/no/such")), "sh").is_err());
    }

    #[tokio::test]
    async fn a_server_that_ends_is_told_with_its_words_and_its_directory_goes() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut servers = Servers::new("test", dir.path()).expect("a directory in it");
        let sh = find(None, "sh").expect("every system has it");
        let script = "echo no disk >&2; exit 3";
        servers
            .start("one", &sh, vec!["-c".into(), script.into()])
            .expect("it starts");
        let patience = quorate_torture::wait::Patience::new("it ends", READY_WITHIN);
        let told = loop {
            match servers.check() {
                Err(told) => break told.to_string(),
                Ok(()) => patience.again("it runs").await.expect("it ends"),
            }
        };
        assert!(told.contains("one has ended") && told.contains("no disk"), "{told}");
        let folder = servers.path("");
        assert!(folder.is_dir());
        drop(servers);
        assert!(!folder.exists());
    }
}
