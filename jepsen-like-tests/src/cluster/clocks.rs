//! Wall clocks that are wrong, by libfaketime. The monotonic clock of the process stays right.

use std::path::Path;

/// Where Debian's package `faketime` puts the library.
const LIBRARIES: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
];

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
        let library = LIBRARIES.into_iter().find(|library| Path::new(library).exists())?;
        Some(Self {
            library,
            offset: offset.to_owned(),
        })
    }

    /// A command that replaces itself by the process.
    pub(super) fn wrapper(&self) -> Vec<String> {
        vec![
            "env".to_owned(),
            format!("LD_PRELOAD={}", self.library),
            format!("FAKETIME={}", self.offset),
            "DONT_FAKE_MONOTONIC=1".to_owned(),
            "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
            // Files that are shared with other processes are nothing that a node should leave behind.
            "FAKETIME_DISABLE_SHM=1".to_owned(),
        ]
    }
}
