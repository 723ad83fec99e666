//! File descriptors: every connection takes one, and the usual soft limit, 1024, was made for programs
//! that use `select`.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// For what is no client's connection: at most 256 peers' connections, 784 files of RocksDB, a snapshot on
/// its way, and sockets that are just being refused.
const OTHERS: u64 = 2048;

/// Raises the soft limit to the hard one, and tells the operator if the connections that the node would
/// take do not fit: then it runs out of descriptors before its own bound turns connections away.
pub fn make_room(connections_max: usize) {
    let limit = match raise() {
        Ok(limit) => limit,
        Err(error) => {
            tracing::warn!(%error, "failed to raise the limit of open files");
            return;
        }
    };
    let wanted = connections_max as u64 + OTHERS;
    if limit < wanted {
        tracing::warn!(
            limit,
            wanted,
            "the limit of open files is too low for all connections that this node would take; \
             raise it (ulimit -n, LimitNOFILE=)"
        );
    }
}

/// The soft limit, raised as far as it may be.
///
/// # Errors
/// If the system refuses; then it is what it was.
pub fn raise() -> nix::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limits can be read");
        setrlimit(Resource::RLIMIT_NOFILE, hard.min(512), hard).expect("a soft limit can be lowered");
        assert_eq!(raise(), Ok(hard));
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE), Ok((hard, hard)));
    }
}
