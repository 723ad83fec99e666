//! Small disks for nodes: file systems in memory (tmpfs) of a fixed size, which fill as disks do.
//!
//! They are mounted in a mount namespace of their own, which lives as long as the process that keeps
//! it, so that no mount is left behind, however a test ends. Only processes that enter it see them.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::process::{spawn, tied_to_this_process};

/// Mounts, says so, and keeps the namespace. Arguments: the size, then the folders.
const KEEPER: &str = r#"
size=$1; shift
for folder in "$@"; do mount -t tmpfs -o "size=$size" quorate-test "$folder" || exit 1; done
echo mounted
exec sleep infinity
"#;

#[derive(Debug)]
pub struct SmallDisks {
    keeper: Child,
    folder: TempDir,
    disks: u64,
    as_root: bool,
}

impl SmallDisks {
    /// Mounts a disk of `bytes` for each of the nodes 1 to `disks`. An error means, as a rule, that
    /// this process may not mount: say so and skip.
    pub fn mount(disks: u64, bytes: u64) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("quorate-disks-").tempdir()?;
        let as_root = std::fs::metadata("/proc/self")?.uid() == 0;
        let mut command = tied_to_this_process(OsStr::new("unshare"));
        if !as_root {
            // In a user namespace of its own even an ordinary user may mount a tmpfs, where the kernel permits it.
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--mount", "--propagation", "private", "sh", "-c", KEEPER, "sh"]);
        command.arg(bytes.to_string());
        for number in 1..=disks {
            let disk = folder.path().join(format!("disk-{number}"));
            std::fs::create_dir(&disk)?;
            command.arg(disk);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let keeper = spawn(command).context("failed to start unshare")?;
        let mut mounted = Self {
            keeper,
            folder,
            disks,
            as_root,
        };
        mounted.wait_mounted()?;
        Ok(mounted)
    }

    fn wait_mounted(&mut self) -> Result<()> {
        let (stdout, stderr) = (self.keeper.stdout.take(), self.keeper.stderr.take());
        let mut line = String::new();
        BufReader::new(stdout.context("it was piped")?).read_line(&mut line)?;
        if line != "mounted\n" {
            let mut why = String::new();
            stderr.context("it was piped")?.read_to_string(&mut why)?;
            anyhow::bail!("cannot mount a tmpfs: {}", why.trim());
        }
        Ok(())
    }

    /// Node `id`'s directory on its disk, as processes in the namespace see it.
    pub(super) fn folder(&self, id: u64) -> Result<PathBuf> {
        ensure!((1..=self.disks).contains(&id), "there is no disk for node {id}");
        Ok(self.folder.path().join(format!("disk-{id}/node-{id}")))
    }

    /// The same directory, as this process can see it.
    pub fn from_outside(&self, id: u64) -> Result<PathBuf> {
        let inside = self.folder(id)?;
        let root = PathBuf::from(format!("/proc/{}/root", self.keeper.id()));
        Ok(root.join(inside.strip_prefix("/")?))
    }

    /// The command that starts another one inside.
    pub(super) fn enter(&self) -> Vec<String> {
        let mut words = vec!["nsenter".to_owned()];
        if !self.as_root {
            words.extend(["--user".to_owned(), "--preserve-credentials".to_owned()]);
        }
        words.extend([
            "--mount".to_owned(),
            format!("--target={}", self.keeper.id()),
            "--".to_owned(),
        ]);
        words
    }
}

impl Drop for SmallDisks {
    fn drop(&mut self) {
        // Both fail only if it is already gone. The mounts end with the last process inside.
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_small_disk_is_small_and_nobody_else_sees_it() {
        let disks = match SmallDisks::mount(2, 1 << 20) {
            Ok(disks) => disks,
            Err(why) => return eprintln!("SKIPPED a_small_disk_is_small_and_nobody_else_sees_it: {why:#}"),
        };
        let inside = disks.folder(2).expect("there are two");
        let enter = disks.enter();
        let written = Command::new(&enter[0])
            .args(&enter[1..])
            .args([
                "sh",
                "-c",
                "mkdir \"$1\" && head -c 2000000 /dev/zero > \"$1/file\"",
                "sh",
            ])
            .arg(&inside)
            .stderr(Stdio::null())
            .status()
            .expect("nsenter can be started");
        assert!(!written.success(), "two megabytes do not fit into one");
        assert!(!inside.exists());
        let seen = disks.from_outside(2).expect("there are two").join("file");
        let size = std::fs::metadata(seen).expect("it is there").len();
        assert!((500_000..=1 << 20).contains(&size), "{size}");
    }
}
