//! Wall clocks that are wrong, by libfaketime. The monotonic clock of the process stays right.

use std::path::Path;

/// Where Debian's package `faketime` puts the library.
const LIBRARIES: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
];
/// In libfaketime's words, of two of its versions.
pub(super) const ONLY_THE_WALL_CLOCK: [&str; 3] = [
    "DONT_FAKE_MONOTONIC=1",
    "FAKETIME_DONT_FAKE_MONOTONIC=1",
    // Later versions than Debian 12's; see `clean_up_after` for the others.
    "FAKETIME_DISABLE_SHM=1",
];

/// Takes away what the library keeps in memory for the children of a process, which it does not do itself when the
/// process is killed. Of a process that had no such clock there is nothing.
pub(super) fn clean_up_after(pid: u32) {
    for file in [format!("faketime_shm_{pid}"), format!("sem.faketime_sem_{pid}")] {
        // It fails only where nothing is there.
        let _ = std::fs::remove_file(Path::new("/dev/shm").join(file));
    }
}

/// None where it is not installed.
pub(super) fn library() -> Option<&'static str> {
    LIBRARIES.into_iter().find(|library| Path::new(library).exists())
}

/// How to start a process whose wall clock is off.
#[derive(Debug, Clone)]
pub struct WrongClock {
    library: &'static str,
    /// In libfaketime's words, for example `+3600` or `-2h`.
    offset: String,
}

impl WrongClock {
    /// None where the library is not installed: say so and skip.
    pub fn off_by(offset: &str) -> Option<Self> {
        Some(Self {
            library: library()?,
            offset: offset.to_owned(),
        })
    }

    /// A command that replaces itself by the process.
    pub(super) fn wrapper(&self) -> Vec<String> {
        let mut words = vec![
            "env".to_owned(),
            format!("LD_PRELOAD={}", self.library),
            format!("FAKETIME={}", self.offset),
        ];
        words.extend(ONLY_THE_WALL_CLOCK.map(str::to_owned));
        words
    }
}
