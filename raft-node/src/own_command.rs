//! Commands that no client has sent: the node's own doing, as the administrator.

use quorate_state_machine::{Caller, Command, Conditions, Envelope, SpaceId};

/// The request id of what every node does now and then by itself.
pub(crate) const OF_THE_NODE: &str = "node";

/// The request id of a raise of the cluster version.
pub(crate) const CLUSTER_VERSION: &str = "cluster-version";

/// `request_id` stands in the log and in the events of the command, so that one can tell whose doing it was.
pub(crate) fn own_command(command: Command, request_id: &str) -> Envelope {
    Envelope {
        space: SpaceId::MAIN,
        caller: Caller::Root,
        request_id: request_id.to_owned(),
        idempotency: None,
        conditions: Conditions::default(),
        command,
    }
}
