//! A node's data directory: whose it is, that only one process uses it, and where things lie in it.
//!
//! ```text
//! IDENTITY     node id, random store id, cluster id once known; never changes afterwards
//! LOCK         held as long as a process uses the directory
//! log/         the Raft log (RocksDB); log.mark beside it
//! state/       the applied state (RocksDB)
//! tmp/         snapshots under way; emptied at each start
//! ```
//!
//! The store id tells a disk that was wiped or swapped from the one that voted before: peers learn
//! it and refuse another one under the same node id.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use crate::error::OpenError;
use crate::small_file;

/// The version of the directory's layout and of all that is stored in it.
const VERSION: u64 = 1;

/// Longer names are refused, so that the file stays readable.
const CLUSTER_ID_BYTES_MAX: usize = 128;

/// Who a data directory belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub node_id: u64,
    /// 128 random bits as 32 hexadecimal digits, made with the directory.
    pub store_id: String,
    /// None until the node has become part of a cluster.
    pub cluster_id: Option<String>,
}

/// An opened, locked data directory. The lock ends with this value or with the process.
#[derive(Debug)]
pub struct NodeDir {
    dir: PathBuf,
    /// Held for as short as a file is written; never across an await, as nothing here is async.
    identity: Mutex<Identity>,
    _lock: File,
}

impl NodeDir {
    /// Opens the directory of `node_id`, or makes it when it is missing or empty. Empties `tmp/`.
    pub fn open(dir: &Path, node_id: u64) -> Result<NodeDir, OpenError> {
        let during = |what: &'static str| move |error| OpenError::io(format!("{what} {}", dir.display()), error);
        fs::create_dir_all(dir).map_err(during("create"))?;
        let lock = lock(dir)?;
        let identity = match load_identity(dir)? {
            Some(identity) => identity,
            None => {
                // Giving a new identity to old data would hide that a disk was damaged.
                if dir.join("log").exists() || dir.join("state").exists() {
                    return Err(OpenError::corrupt(
                        dir.display().to_string(),
                        "it has data but no IDENTITY file",
                    ));
                }
                let identity = Identity {
                    node_id,
                    store_id: format!("{:032x}", rand::random::<u128>()),
                    cluster_id: None,
                };
                save_identity(dir, &identity).map_err(during("write the identity of"))?;
                identity
            }
        };
        if identity.node_id != node_id {
            return Err(OpenError::OtherNode {
                dir: dir.to_owned(),
                found: identity.node_id,
                expected: node_id,
            });
        }
        small_file::remove_tree(&dir.join("tmp")).map_err(during("clean tmp/ of"))?;
        fs::create_dir(dir.join("tmp")).map_err(during("create tmp/ of"))?;
        small_file::sync_dir(dir).map_err(during("sync"))?;
        Ok(NodeDir {
            dir: dir.to_owned(),
            identity: Mutex::new(identity),
            _lock: lock,
        })
    }

    pub fn identity(&self) -> Identity {
        self.lock_identity().clone()
    }

    /// Binds the directory to a cluster, durably. Once bound it stays: the same id again changes
    /// nothing, another one is [`OpenError::OtherCluster`].
    pub fn set_cluster_id(&self, id: &str) -> Result<(), OpenError> {
        let what = || format!("write the cluster id of {}", self.dir.display());
        if id.is_empty() || id.len() > CLUSTER_ID_BYTES_MAX || !id.bytes().all(|b| b.is_ascii_graphic()) {
            let error = format!("{id:?} is not 1 to {CLUSTER_ID_BYTES_MAX} visible ASCII characters");
            return Err(OpenError::io(
                what(),
                io::Error::new(io::ErrorKind::InvalidInput, error),
            ));
        }
        let mut identity = self.lock_identity();
        match &identity.cluster_id {
            Some(found) if found == id => Ok(()),
            Some(found) => Err(OpenError::OtherCluster {
                dir: self.dir.clone(),
                found: found.clone(),
                expected: id.to_owned(),
            }),
            None => {
                let bound = Identity {
                    cluster_id: Some(id.to_owned()),
                    ..identity.clone()
                };
                save_identity(&self.dir, &bound).map_err(|error| OpenError::io(what(), error))?;
                *identity = bound;
                Ok(())
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.dir
    }

    pub fn log_dir(&self) -> PathBuf {
        self.dir.join("log")
    }

    pub fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// For snapshots on their way in or out: on the same file system as `state/`, so that they can
    /// be linked and renamed.
    pub fn tmp_dir(&self) -> PathBuf {
        self.dir.join("tmp")
    }

    /// Bytes that the node may still write to this file system.
    pub fn free_bytes(&self) -> io::Result<u64> {
        let stat = nix::sys::statvfs::statvfs(&self.dir)?;
        Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
    }

    /// Bytes below `tmp/` that are there only: a snapshot shares its files with the state by hard links
    /// until the state has rewritten its own.
    pub fn unshared_tmp_bytes(&self) -> u64 {
        small_file::unshared_bytes(&self.tmp_dir())
    }

    fn lock_identity(&self) -> MutexGuard<'_, Identity> {
        self.identity.lock().expect("no one panics while holding the identity")
    }
}

fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join("LOCK");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|error| OpenError::io(format!("open {}", path.display()), error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked { dir: dir.to_owned() }),
        Err(TryLockError::Error(error)) => Err(OpenError::io(format!("lock {}", path.display()), error)),
    }
}

fn identity_path(dir: &Path) -> PathBuf {
    dir.join("IDENTITY")
}

fn load_identity(dir: &Path) -> Result<Option<Identity>, OpenError> {
    let path = identity_path(dir);
    let corrupt = |reason: String| OpenError::corrupt(path.display().to_string(), reason);
    let lines = match small_file::load(&path) {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(corrupt(error.to_string())),
        Err(error) => return Err(OpenError::io(format!("read {}", path.display()), error)),
        Ok(None) => return Ok(None),
        Ok(Some(lines)) => lines,
    };
    let line = |name: &str| {
        lines
            .get(name)
            .ok_or_else(|| corrupt(format!("line {name} is missing")))
    };
    let number = |name: &str| {
        line(name)?
            .parse::<u64>()
            .map_err(|error| corrupt(format!("line {name}: {error}")))
    };
    let version = number("version")?;
    if version > VERSION {
        return Err(OpenError::TooNew {
            what: dir.display().to_string(),
            found: version,
            supported: VERSION,
        });
    }
    Ok(Some(Identity {
        node_id: number("node")?,
        store_id: line("store")?.clone(),
        cluster_id: lines.get("cluster").cloned(),
    }))
}

fn save_identity(dir: &Path, identity: &Identity) -> io::Result<()> {
    let mut lines = vec![
        ("version", VERSION.to_string()),
        ("node", identity.node_id.to_string()),
        ("store", identity.store_id.clone()),
    ];
    if let Some(cluster) = &identity.cluster_id {
        lines.push(("cluster", cluster.clone()));
    }
    small_file::replace(&identity_path(dir), &lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_stays() {
        let dir = tempfile::tempdir().unwrap();
        let opened = NodeDir::open(dir.path(), 3).unwrap();
        let first = opened.identity();
        assert_eq!((first.node_id, first.store_id.len(), &first.cluster_id), (3, 32, &None));
        opened.set_cluster_id("c1").unwrap();
        opened.set_cluster_id("c1").unwrap();
        assert!(matches!(
            opened.set_cluster_id("c2"),
            Err(OpenError::OtherCluster { .. })
        ));
        assert!(opened.set_cluster_id("two words").is_err());
        drop(opened);
        let again = NodeDir::open(dir.path(), 3).unwrap().identity();
        assert_eq!(
            again,
            Identity {
                cluster_id: Some("c1".into()),
                ..first
            }
        );
    }

    /// What older programs have written must stay readable: this form never changes.
    #[test]
    fn golden_identity() {
        let dir = tempfile::tempdir().unwrap();
        let text = "cluster c1\nnode 7\nstore 000000000000000000000000000000ff\nversion 1\n";
        let sealed = format!("{text}crc32 {:08x}\n", crc32fast::hash(text.as_bytes()));
        assert!(sealed.ends_with("crc32 512ffdfc\n"), "{sealed}");
        fs::write(identity_path(dir.path()), sealed).unwrap();
        let identity = NodeDir::open(dir.path(), 7).unwrap().identity();
        let store_id = "000000000000000000000000000000ff".to_owned();
        assert_eq!(
            identity,
            Identity {
                node_id: 7,
                store_id,
                cluster_id: Some("c1".to_owned())
            }
        );
    }

    #[test]
    fn two_directories_have_two_store_ids() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let id = |dir: &Path| NodeDir::open(dir, 1).unwrap().identity().store_id;
        assert_ne!(id(a.path()), id(b.path()));
    }

    #[test]
    fn two_openers_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let opened = NodeDir::open(dir.path(), 1).unwrap();
        assert!(matches!(NodeDir::open(dir.path(), 1), Err(OpenError::Locked { .. })));
        drop(opened);
        NodeDir::open(dir.path(), 1).unwrap();
    }

    #[test]
    fn a_directory_of_another_node_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(NodeDir::open(dir.path(), 1).unwrap());
        let error = NodeDir::open(dir.path(), 2).unwrap_err();
        assert!(
            matches!(
                error,
                OpenError::OtherNode {
                    found: 1,
                    expected: 2,
                    ..
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn a_newer_layout_and_a_damaged_identity_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(NodeDir::open(dir.path(), 1).unwrap());
        let lines = [
            ("version", "2".to_owned()),
            ("node", "1".to_owned()),
            ("store", "0".to_owned()),
        ];
        small_file::replace(&identity_path(dir.path()), &lines).unwrap();
        assert!(matches!(
            NodeDir::open(dir.path(), 1),
            Err(OpenError::TooNew { found: 2, .. })
        ));
        fs::write(identity_path(dir.path()), "version 1\n").unwrap();
        assert!(matches!(NodeDir::open(dir.path(), 1), Err(OpenError::Corrupt { .. })));
    }

    #[test]
    fn data_without_an_identity_is_not_adopted() {
        let dir = tempfile::tempdir().unwrap();
        drop(NodeDir::open(dir.path(), 1).unwrap());
        fs::create_dir(dir.path().join("log")).unwrap();
        fs::remove_file(identity_path(dir.path())).unwrap();
        assert!(matches!(NodeDir::open(dir.path(), 1), Err(OpenError::Corrupt { .. })));
    }

    #[test]
    fn leftovers_in_tmp_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let opened = NodeDir::open(dir.path(), 1).unwrap();
        fs::create_dir(opened.tmp_dir().join("half")).unwrap();
        fs::write(opened.tmp_dir().join("half/file"), "x").unwrap();
        assert!(opened.free_bytes().unwrap() > 0);
        drop(opened);
        let opened = NodeDir::open(dir.path(), 1).unwrap();
        assert_eq!(fs::read_dir(opened.tmp_dir()).unwrap().count(), 0);
    }
}
