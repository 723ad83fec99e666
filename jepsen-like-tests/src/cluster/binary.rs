//! Where the `quorate` binary under test is.

use std::path::PathBuf;

use anyhow::{Result, bail};

/// `$QUORATE_BIN`, else the `quorate` of the build that made this executable, else the one in
/// `$CARGO_TARGET_DIR/release`. Cargo does not build another crate's binary for a test, so it must
/// have been built before.
pub(super) fn find() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("QUORATE_BIN") {
        let named = PathBuf::from(named);
        if !named.is_file() {
            bail!("QUORATE_BIN names {}, which is not a file", named.display());
        }
        return Ok(named);
    }
    let mut candidates = Vec::new();
    if let Ok(own) = std::env::current_exe() {
        // A test lies in <profile>/deps, a binary in <profile>.
        candidates.extend(own.ancestors().skip(1).take(2).map(|folder| folder.join("quorate")));
    }
    if let Some(target) = std::env::var_os("CARGO_TARGET_DIR") {
        candidates.push(PathBuf::from(target).join("release/quorate"));
    }
    match candidates.iter().find(|path| path.is_file()) {
        Some(found) => Ok(found.clone()),
        None => {
            let looked: Vec<String> = candidates.iter().map(|path| path.display().to_string()).collect();
            bail!(
                "the binary `quorate` is missing: run `cargo build --release` for the whole workspace first, \
                 or name it in QUORATE_BIN (looked for {})",
                looked.join(", ")
            )
        }
    }
}
