//! Small files that are replaced whole: written beside, synced, renamed, the directory synced. A
//! crash leaves the old contents or the new, never a mixture.
//!
//! Their contents are lines of `name value` that people can read, and a last line with a checksum.

use std::collections::BTreeMap;
use std::fs::{self, DirEntry, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

/// The lines of a small file, by name.
pub(crate) type Lines = BTreeMap<String, String>;

/// Replaces `path` by `lines` and makes that durable.
pub(crate) fn replace(path: &Path, lines: &[(&str, String)]) -> io::Result<()> {
    let mut text = String::new();
    for (name, value) in lines {
        text.push_str(name);
        text.push(' ');
        text.push_str(value);
        text.push('\n');
    }
    let text = format!("{text}crc32 {:08x}\n", crc32fast::hash(text.as_bytes()));
    let beside = beside(path);
    let mut file = File::create(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// The lines of `path`; none if there is no such file, an error of kind `InvalidData` if it is
/// damaged. Removes what an interrupted [`replace`] left behind.
pub(crate) fn load(path: &Path) -> io::Result<Option<Lines>> {
    match fs::remove_file(beside(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read?,
    };
    parse(&bytes)
        .map(Some)
        .map_err(|reason| io::Error::new(io::ErrorKind::InvalidData, reason))
}

fn parse(bytes: &[u8]) -> Result<Lines, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not text".to_owned())?;
    let sum_at = text.rfind("crc32 ").ok_or("it has no checksum")?;
    let (body, sum) = text.split_at(sum_at);
    if sum != format!("crc32 {:08x}\n", crc32fast::hash(body.as_bytes())) {
        return Err("its checksum is wrong".to_owned());
    }
    body.lines()
        .map(|line| match line.split_once(' ') {
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => Err(format!("line {line:?} has no value")),
        })
        .collect()
}

fn beside(path: &Path) -> PathBuf {
    with_suffix(path, ".new")
}

/// `path` with `suffix` at the end of its name.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Makes the names in `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Makes all files below `dir` and their names durable.
pub(crate) fn sync_tree(dir: &Path) -> io::Result<()> {
    sync_tree_except(dir, |_| Ok(false))
}

/// As [`sync_tree`], without the bytes of those files that are durable already. Their names are made durable.
pub(crate) fn sync_tree_except(dir: &Path, durable: impl Fn(&DirEntry) -> io::Result<bool> + Copy) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree_except(&entry.path(), durable)?;
        } else if !durable(&entry)? {
            File::open(entry.path())?.sync_all()?;
        }
    }
    sync_dir(dir)
}

/// Bytes of the files below `dir`; files that vanish while it looks count nothing.
pub(crate) fn tree_bytes(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => tree_bytes(&entry.path()),
            Ok(data) => data.len(),
            Err(_) => 0,
        })
        .sum()
}

/// The bytes of files below `dir` that have no other name anywhere.
pub(crate) fn unshared_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => unshared_bytes(&entry.path()),
            Ok(data) if data.nlink() == 1 => data.len(),
            Ok(_) | Err(_) => 0,
        })
        .sum()
}

/// Removes `dir` and all below it; it may be missing.
pub(crate) fn remove_tree(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Whether files of this directory can be written past the page cache. Those of some file systems cannot: in memory, over a network.
pub(crate) fn takes_direct_io(dir: &Path) -> bool {
    // A file without a name: nothing is left behind.
    let flags = OFlag::O_TMPFILE | OFlag::O_DIRECT;
    File::options().write(true).custom_flags(flags.bits()).open(dir).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What it says of a directory that is there is the file system's business; RocksDB opens no log where it says yes in vain.
    #[test]
    fn what_is_no_directory_takes_no_direct_io() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!takes_direct_io(&dir.path().join("missing")));
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(!takes_direct_io(&dir.path().join("file")));
        takes_direct_io(dir.path());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "it leaves nothing behind");
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("F");
        replace(&path, &[("version", "1".into()), ("name", "a b c".into())]).unwrap();
        let good = fs::read(&path).unwrap();
        assert_eq!(load(&path).unwrap().unwrap()["name"], "a b c");
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &bad).unwrap();
            assert_eq!(load(&path).unwrap_err().kind(), io::ErrorKind::InvalidData, "bit {bit}");
        }
    }

    #[test]
    fn an_interrupted_replacement_leaves_the_old_contents() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("F");
        assert_eq!(load(&path).unwrap(), None);
        replace(&path, &[("version", "1".into())]).unwrap();
        fs::write(beside(&path), "half of a ne").unwrap();
        assert_eq!(load(&path).unwrap().unwrap()["version"], "1");
        assert!(!beside(&path).exists());
    }

    /// A file that cannot be opened shows which ones are.
    #[test]
    fn what_is_durable_already_is_not_synced_again_in_any_folder() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("below")).unwrap();
        for name in ["below/gone", "gone"] {
            std::os::unix::fs::symlink("/nowhere", dir.path().join(name)).unwrap();
        }
        assert!(sync_tree(dir.path()).is_err());
        sync_tree_except(dir.path(), |file| Ok(file.file_name() == "gone")).unwrap();
        assert!(sync_tree_except(dir.path(), |file| Ok(file.file_name() == "other")).is_err());
        assert!(sync_tree_except(dir.path(), |_| Err(io::Error::other("unknown"))).is_err());
    }
}
