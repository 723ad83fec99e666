//! Where the administrator's token comes from: a file, else the environment. Never the line itself, which every
//! user of the machine can read, and never the file of settings, which is shown around.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use quorate_api::RootToken;
use raft_node::config::InvalidConfig;

/// Taken where no file is named.
pub(super) const VARIABLE: &str = "QUORATE_ROOT_TOKEN";

pub(super) fn find(file: Option<&Path>, variable: Option<String>) -> Result<Option<RootToken>, InvalidConfig> {
    let invalid = |name: &str, why: &dyn std::fmt::Display| InvalidConfig(format!("{name}: {why}"));
    if let Some(path) = file {
        let name = format!("root-token-file: {}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| invalid(&name, &error))?;
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        return RootToken::new(line).map(Some).map_err(|why| invalid(&name, &why));
    }
    let token = variable
        .filter(|text| !text.is_empty())
        .map(|text| RootToken::new(&text));
    token.transpose().map_err(|why| invalid(VARIABLE, &why))
}

/// A file that others than its owner can read is a secret no more.
pub(super) fn advice(file: &Path) -> Option<String> {
    let mode = std::fs::metadata(file).ok()?.permissions().mode();
    (mode & 0o077 != 0).then(|| {
        format!(
            "root-token-file: {} can be read by others than its owner (mode {:o}): chmod 600",
            file.display(),
            mode & 0o777
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn the_file_goes_before_the_variable() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("token");
        let variable = || Some(TOKEN.replace('0', "x"));
        for text in [TOKEN.to_owned(), format!("{TOKEN}\n"), format!("{TOKEN}\r\n")] {
            std::fs::write(&path, text).expect("a file");
            let token = find(Some(&path), variable()).expect("a token").expect("it is there");
            assert_eq!(token.text(), TOKEN);
        }
        assert!(find(None, variable()).expect("a token").is_some());
        assert!(find(None, None).expect("none").is_none() && find(None, Some(String::new())).expect("none").is_none());
    }

    #[test]
    fn a_bad_one_is_refused_without_being_shown() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("token");
        for text in [
            "",
            "short",
            &format!("{TOKEN} "),
            &format!("{TOKEN}\n\n"),
            &format!("{TOKEN}\n{TOKEN}"),
        ] {
            std::fs::write(&path, text).expect("a file");
            let error = find(Some(&path), None).expect_err("a bad token").to_string();
            assert!(
                error.starts_with("root-token-file: ") && !error.contains("0123"),
                "{error}"
            );
        }
        let missing = find(Some(&dir.path().join("nowhere")), Some(TOKEN.to_owned()));
        assert!(missing.expect_err("no file").to_string().contains("nowhere"));
        assert!(find(None, Some("short".to_owned())).is_err());
    }

    #[test]
    fn who_else_can_read_it_is_said() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("token");
        std::fs::write(&path, TOKEN).expect("a file");
        for (mode, warned) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("permissions");
            assert_eq!(advice(&path).is_some(), warned, "{mode:o}");
        }
    }
}
