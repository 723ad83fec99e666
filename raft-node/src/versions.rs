//! The cluster version as this node deals with it: what its build supports, when the leader raises it, and
//! who holds it back. What each version brings is in `quorate_state_machine::version`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bincode::{Decode, Encode};
use quorate_api::replica::ReplicaError;
use quorate_state_machine::{Command, VERSION_MAX, VERSION_MIN};
use quorate_storage::state::StateStore;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::node::NodeCore;
use crate::own_command::{CLUSTER_VERSION, own_command};
use crate::survey::Survey;

/// A raise that no majority has confirmed by then is decided anew: it may still come.
const RAISE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a command waits for its version: a leader that was just elected asks all members first.
const RAISED_WITHIN: Duration = Duration::from_secs(2);

/// The cluster versions that a build can be part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Supported {
    pub min: u32,
    pub max: u32,
}

/// A cluster version that a build cannot be part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsupported {
    version: u32,
    build: Supported,
}

impl Supported {
    /// What this build supports, as an older build would if `max` is lower.
    pub fn up_to(max: u32) -> Self {
        Self {
            min: VERSION_MIN,
            max: max.min(VERSION_MAX),
        }
    }

    pub fn check(self, version: u32) -> Result<(), Unsupported> {
        if (self.min..=self.max).contains(&version) {
            Ok(())
        } else {
            Err(Unsupported { version, build: self })
        }
    }
}

impl Unsupported {
    /// Said of another node's build.
    pub fn of_node(&self, id: u64) -> String {
        self.said_of(&format!("the build of node {id}"))
    }

    fn said_of(&self, whose: &str) -> String {
        let Self { version, build } = self;
        let age = if *version > build.max { "a newer" } else { "an older" };
        format!(
            "the cluster is at version {version}, {whose} supports {} to {}: use {age} build",
            build.min, build.max
        )
    }
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.said_of("this build"))
    }
}

impl std::error::Error for Unsupported {}

/// What each member says that its build supports; none of those who have not answered.
type Builds = BTreeMap<u64, Option<Supported>>;

fn builds(survey: &Survey) -> Builds {
    let of = |(id, answer): (&u64, &Option<_>)| {
        (
            *id,
            answer
                .as_ref()
                .map(|answer: &crate::peers::frame::StatusAnswer| answer.versions),
        )
    };
    survey.iter().map(of).collect()
}

/// The version that the cluster can be raised to: the highest that all members support. None before all
/// have answered: one that is silent may be of any build.
fn higher(version: u32, builds: &Builds) -> Option<u32> {
    let all: Option<Vec<u32>> = builds.values().map(|build| build.map(|build| build.max)).collect();
    all?.into_iter().min().filter(|common| *common > version)
}

/// Who keeps the cluster below `wanted`, in words; empty if nobody does.
fn held_back(wanted: u32, builds: &Builds) -> String {
    let words: Vec<String> = builds
        .iter()
        .filter_map(|(id, build)| match build {
            Some(build) if build.max >= wanted => None,
            Some(build) => Some(format!("node {id} (its build supports {} to {})", build.min, build.max)),
            None => Some(format!("node {id} (it does not answer)")),
        })
        .collect();
    words.join(", ")
}

/// The leader's part: raises the version when all members can follow.
#[derive(Default)]
pub(crate) struct Raising {
    under_way: Option<JoinHandle<()>>,
    /// Who holds the version back, as it was last logged.
    told: String,
}

impl Raising {
    /// Takes what the members have just said.
    pub(crate) fn look<S: StateStore>(&mut self, core: &Arc<NodeCore<S>>, survey: &Survey) {
        let version = core.applied.borrow().version;
        let builds = builds(survey);
        if let Some(to) = higher(version, &builds) {
            // One at a time: its outcome is known, or given up, when it ends.
            if self.under_way.as_ref().is_none_or(JoinHandle::is_finished) {
                self.under_way = Some(tokio::spawn(raise(core.clone(), builds, to)));
            }
            return;
        }
        let holding = match core.versions.max > version {
            true => held_back(core.versions.max, &builds),
            false => String::new(),
        };
        if self.told != holding {
            if !holding.is_empty() {
                tracing::info!(version, by = %holding, "the cluster version is held back");
            }
            self.told = holding;
        }
    }
}

async fn raise<S: StateStore>(core: Arc<NodeCore<S>>, builds: Builds, to: u32) {
    // Nobody is let in meanwhile who might not be able to follow. When it is somebody else's turn, the next
    // survey comes soon.
    let Some(_turn) = core.changes.try_turn() else { return };
    let effective = core
        .raft
        .with_raft_state(|state| state.membership_state.effective().clone())
        .await;
    let Ok(effective) = effective else { return };
    if !effective.nodes().map(|(id, _)| id).eq(builds.keys()) {
        return;
    }
    let command = own_command(Command::RaiseVersion { to }, CLUSTER_VERSION).encode();
    if core.disk.refuses(&command) {
        return;
    }
    let deadline = Instant::now() + RAISE_TIMEOUT;
    match core
        .proposer
        .propose(command.into(), deadline)
        .await
        .map(|outcome| outcome.response)
    {
        Ok(Ok(_)) => tracing::info!(version = to, "the cluster version was raised: all members support it"),
        // An earlier proposal, whose outcome nobody could tell, has come through.
        Ok(Err(refused)) => tracing::info!(reason = %refused.detail, "the cluster version was not raised"),
        Err(error) => tracing::warn!(?error, "failed to raise the cluster version"),
    }
}

impl<S: StateStore> NodeCore<S> {
    /// Waits a moment for the cluster version that a command needs: a cluster that has just begun, or whose
    /// last node was just upgraded, is there soon. Nothing is proposed before: an older build could not read it.
    pub(crate) async fn await_version(&self, needed: u32, deadline: Instant) -> Result<(), ReplicaError> {
        if self.applied.borrow().version >= needed {
            return Ok(());
        }
        let mut applied = self.applied.clone();
        let raised = applied.wait_for(|now| now.version >= needed);
        let until = deadline.min(Instant::now() + RAISED_WITHIN);
        let in_time = tokio::time::timeout_at(until, raised).await.is_ok();
        if in_time {
            return Ok(());
        }
        let refused = self.need_version(needed, "this").await;
        refused.map_err(ReplicaError::NotReady)
    }

    /// Refuses what needs a cluster version that the cluster is not at, and says who holds it back.
    pub(crate) async fn need_version(&self, needed: u32, what: &str) -> Result<(), String> {
        let version = self.applied.borrow().version;
        if version >= needed {
            return Ok(());
        }
        let holding = held_back(needed, &builds(&self.ask_members().await));
        let why = match holding.is_empty() {
            true => "it is being raised: ask again".to_owned(),
            false => format!("held back by {holding}"),
        };
        Err(format!(
            "{what} needs cluster version {needed}, and the cluster is at version {version}: {why}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn builds_of(maxima: &[Option<u32>]) -> Builds {
        let build = |max: Option<u32>| max.map(|max| Supported { min: 1, max });
        (1..).zip(maxima).map(|(id, max)| (id, build(*max))).collect()
    }

    #[test]
    fn the_version_goes_where_all_members_can_follow() {
        assert_eq!(higher(1, &builds_of(&[Some(2), Some(2), Some(2)])), Some(2));
        assert_eq!(higher(1, &builds_of(&[Some(3), Some(2), Some(4)])), Some(2));
        assert_eq!(higher(1, &builds_of(&[Some(2), Some(1), Some(2)])), None);
        assert_eq!(
            higher(1, &builds_of(&[Some(2), None, Some(2)])),
            None,
            "who is silent may be old"
        );
        assert_eq!(higher(2, &builds_of(&[Some(2), Some(2)])), None);
        assert_eq!(higher(2, &builds_of(&[Some(1), Some(2)])), None, "never down");
        assert_eq!(higher(1, &builds_of(&[])), None);
    }

    #[test]
    fn who_holds_the_version_back_is_named() {
        assert_eq!(
            held_back(2, &builds_of(&[Some(2), Some(1), None])),
            "node 2 (its build supports 1 to 1), node 3 (it does not answer)"
        );
        assert_eq!(held_back(2, &builds_of(&[Some(2), Some(3)])), "");
    }

    #[test]
    fn a_build_refuses_what_it_does_not_support() {
        let old = Supported { min: 1, max: 1 };
        assert_eq!(old.check(1), Ok(()));
        assert_eq!(
            old.check(2).unwrap_err().to_string(),
            "the cluster is at version 2, this build supports 1 to 1: use a newer build"
        );
        let new = Supported { min: 2, max: 3 };
        assert_eq!(
            new.check(1).unwrap_err().to_string(),
            "the cluster is at version 1, this build supports 2 to 3: use an older build"
        );
    }
}
