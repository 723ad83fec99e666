//! A disk for one node: an ext4 file system in a file that has no name, so that it can lose power, hang
//! and fill up alone. Nothing of it is left when the process that made it ends, however that happens: the
//! file has no name from the beginning, and the kernel takes the loop device away with the last mount and
//! the last open descriptor.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use anyhow::{Context, Result, ensure};

use super::command::run;

/// The one system call that no safe function has: `EXT4_IOC_SHUTDOWN`.
mod power {
    #![allow(unsafe_code)]

    use std::os::fd::AsRawFd;

    nix::ioctl_read!(ext4_shutdown, b'X', 125, u32);

    /// Of the ways to shut down: not even the journal is flushed (`EXT4_GOING_FLAGS_NOLOGFLUSH`).
    const NOTHING_IS_FLUSHED: u32 = 2;

    /// From now on nothing reaches the disk of the file system on which this lies.
    pub(super) fn cut(open: &std::fs::File) -> nix::Result<()> {
        let mut how = NOTHING_IS_FLUSHED;
        // Sound: the kernel reads one u32 through a pointer to a live one, and the descriptor is open.
        unsafe { ext4_shutdown(open.as_raw_fd(), &raw mut how) }?;
        Ok(())
    }
}

/// Tables that nobody needs are not written to the file in the background.
const OPTIONS: &str = "noinit_itable";
/// The file that takes up room.
const FILLER: &str = "filler";
/// Freezes, says so, and thaws when its input ends: also when the process that wants it frozen is killed, since
/// nobody could end a process that waits for a frozen disk.
const FREEZER: &str = r#"fsfreeze -f "$1" || exit 1; echo frozen; read -r _; fsfreeze -u "$1""#;

#[derive(Debug)]
pub(crate) struct LoopDisk {
    mount: PathBuf,
    /// The loop device, which stays while this is open. Held to take out.
    device: Mutex<Option<File>>,
    device_path: String,
    /// Who keeps it frozen. Held to put in or take out.
    freezer: Mutex<Option<Child>>,
}

impl LoopDisk {
    /// Makes and mounts one at `mount`. Its file takes only as much room as was written.
    pub(crate) fn create(mount: PathBuf, bytes: u64) -> Result<Self> {
        let image = tempfile::tempfile()?;
        image.set_len(bytes)?;
        let image_path = format!("/proc/{}/fd/{}", std::process::id(), image.as_raw_fd());
        run("mkfs.ext4", &["-q", "-F", "-m", "0", "-E", "nodiscard", &image_path])?;
        std::fs::create_dir_all(&mount)?;
        let at = mount.to_str().context("a mount point is text")?;
        run("mount", &["-o", &format!("loop,{OPTIONS}"), &image_path, at])?;
        let device_path = run("findmnt", &["-n", "-o", "SOURCE", at])?.trim().to_owned();
        let device = File::open(&device_path).with_context(|| format!("failed to open {device_path}"))?;
        Ok(Self {
            mount,
            device: Mutex::new(Some(device)),
            device_path,
            freezer: Mutex::new(None),
        })
    }

    pub(crate) fn mount_point(&self) -> &Path {
        &self.mount
    }

    /// From now on every write and every sync of whoever has it open is an error, and what was not synced
    /// will not be there after [`LoopDisk::mount_again`].
    pub(crate) fn shut_down(&self) -> Result<()> {
        power::cut(&File::open(&self.mount)?).context("failed to shut the file system down")
    }

    /// Unmounts and mounts: what the disk holds is all that is left. Whoever has files open must have ended.
    pub(crate) fn mount_again(&self) -> Result<()> {
        self.unmount()?;
        let at = self.mount.to_str().context("a mount point is text")?;
        run("mount", &["-o", OPTIONS, self.device_path.as_str(), at])?;
        // Its deletion may be among what was not synced, and whoever deleted it believes that it is gone.
        self.make_room();
        Ok(())
    }

    fn unmount(&self) -> Result<()> {
        let at = self.mount.to_str().context("a mount point is text")?;
        run("umount", &[at])?;
        Ok(())
    }

    pub(crate) fn freeze(&self) -> Result<()> {
        let mut freezer = self.freezer.lock().expect("no holder of this lock panics");
        ensure!(freezer.is_none(), "{} is frozen already", self.mount.display());
        let mut child = Command::new("setsid")
            .args(["sh", "-c", FREEZER, "sh"])
            .arg(&self.mount)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("it was piped")?).read_line(&mut line)?;
        *freezer = Some(child);
        drop(freezer);
        if line != "frozen\n" {
            self.thaw()?;
            anyhow::bail!("failed to freeze {}", self.mount.display());
        }
        Ok(())
    }

    /// Does nothing to one that is not frozen.
    pub(crate) fn thaw(&self) -> Result<()> {
        let freezer = self.freezer.lock().expect("no holder of this lock panics").take();
        if let Some(mut child) = freezer {
            drop(child.stdin.take());
            child.wait()?;
        }
        Ok(())
    }

    /// Takes up room until only `left` bytes are free. Answers with the file that takes it up.
    pub(crate) fn fill(&self, left: u64) -> Result<PathBuf> {
        let space = nix::sys::statvfs::statvfs(&self.mount)?;
        let free = space.blocks_available() * space.fragment_size();
        let filler = self.mount.join(FILLER);
        let file = File::create(&filler)?;
        if let Some(bytes) = free.checked_sub(left).filter(|bytes| *bytes > 0) {
            let bytes = i64::try_from(bytes)?;
            nix::fcntl::fallocate(&file, nix::fcntl::FallocateFlags::empty(), 0, bytes)?;
        }
        Ok(filler)
    }

    /// Gives back what [`LoopDisk::fill`] took. Does nothing where it took nothing, or while the power is off:
    /// then [`LoopDisk::mount_again`] does it.
    pub(crate) fn make_room(&self) {
        let _ = std::fs::remove_file(self.mount.join(FILLER));
    }

    /// Gives its room back to the machine. Nothing of it can be used any more.
    pub(crate) fn discard(&self) {
        let device = self.device.lock().expect("no holder of this lock panics").take();
        if device.is_some() {
            // A frozen one cannot be unmounted. What fails here goes with the namespace.
            let _ = self.thaw();
            let _ = run("umount", &["-l", &self.mount.to_string_lossy()]);
        }
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        self.discard();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::time::Duration;

    use super::*;
    use crate::cluster::isolation;
    use crate::wait::eventually;

    const BYTES: u64 = 64 << 20;

    fn disk(name: &str) -> Option<LoopDisk> {
        let isolation = isolation::inside_test(name)?;
        Some(LoopDisk::create(isolation.folder().join("disk"), BYTES).expect("root may mount"))
    }

    fn write(path: &Path, text: &str, synced: bool) {
        let mut file = File::create(path).expect("the disk has room");
        file.write_all(text.as_bytes()).expect("the disk has room");
        if synced {
            file.sync_all().expect("the disk works");
            let folder = File::open(path.parent().expect("it lies on the disk")).expect("it is there");
            folder.sync_all().expect("the disk works");
        }
    }

    #[test]
    fn after_a_power_cut_what_was_synced_is_there_and_the_rest_is_gone() {
        let Some(disk) =
            disk("cluster::loop_disk::tests::after_a_power_cut_what_was_synced_is_there_and_the_rest_is_gone")
        else {
            return;
        };
        let [synced, unsynced] = ["synced", "unsynced"].map(|name| disk.mount_point().join(name));
        write(&synced, "kept", true);
        write(&unsynced, "lost", false);
        let mut appended = File::options().append(true).open(&synced).expect("it is there");
        appended.write_all(b" and more").expect("the disk has room");
        disk.shut_down().expect("ext4 can be shut down");
        appended.sync_all().expect_err("the power is off");
        drop(appended);
        disk.mount_again().expect("nobody has files open");
        assert_eq!(fs::read_to_string(&synced).expect("it was synced"), "kept");
        assert!(fs::read_to_string(&unsynced).unwrap_or_default().is_empty());
        write(&unsynced, "it works again", true);
    }

    #[tokio::test]
    async fn a_frozen_disk_holds_writes_back_until_it_thaws() {
        let Some(disk) = disk("cluster::loop_disk::tests::a_frozen_disk_holds_writes_back_until_it_thaws") else {
            return;
        };
        disk.freeze().expect("ext4 can be frozen");
        let path = disk.mount_point().join("file");
        let writer = std::thread::spawn(move || write(&path, "late", true));
        let early = eventually("the write ends", Duration::from_millis(300), async || {
            writer.is_finished().then_some(()).ok_or("it waits")
        });
        early.await.expect_err("the disk hangs");
        disk.thaw().expect("it was frozen");
        writer.join().expect("the write came through");
    }

    #[test]
    fn a_filled_disk_has_only_so_much_room() {
        let Some(disk) = disk("cluster::loop_disk::tests::a_filled_disk_has_only_so_much_room") else {
            return;
        };
        disk.fill(4 << 20).expect("there is more free than that");
        let path = disk.mount_point().join("file");
        fs::write(&path, vec![0; 8 << 20]).expect_err("eight megabytes do not fit into four");
        fs::remove_file(&path).expect("it was begun");
        disk.make_room();
        fs::write(&path, vec![0; 8 << 20]).expect("there is room again");
    }

    #[test]
    fn a_disk_that_lost_power_while_it_was_full_has_room_again() {
        let name = "cluster::loop_disk::tests::a_disk_that_lost_power_while_it_was_full_has_room_again";
        let Some(disk) = disk(name) else {
            return;
        };
        let filler = File::open(disk.fill(4 << 20).expect("there is more free than that")).expect("it is there");
        filler.sync_all().expect("the disk works");
        drop(filler);
        disk.make_room();
        // The power goes before the deletion is on the disk.
        disk.shut_down().expect("ext4 can be shut down");
        disk.mount_again().expect("nobody has files open");
        fs::write(disk.mount_point().join("file"), vec![0; 8 << 20]).expect("there is room again");
    }
}
