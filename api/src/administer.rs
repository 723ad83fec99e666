//! What the requests of the administrator have in common: those that change the cluster's nodes, and
//! those that have every node do something. They are no commands of the log, so that neither
//! conditions nor idempotency keys are held against them there.

use std::time::Instant;

use quorate_state_machine::{Caller, Code, Rejection};

use crate::app::latest;
use crate::headers;
use crate::params::Params;
use crate::problem::Problem;
use crate::replica::{AdminError, ReplicaError};
use crate::request::Call;

/// What every such request says beside its body.
pub(crate) struct AdminIntent {
    caller: Result<Caller, Problem>,
    pub(crate) deadline: Instant,
    redirect: bool,
}

impl Call {
    /// Headers and query. `params` are parsed already, because not every route knows `redirect`.
    pub(crate) fn admin_intent(&self, params: &Params) -> Result<AdminIntent, Problem> {
        let headers = &self.parts.headers;
        headers::no_conditions(headers)?;
        // To ask twice is to ask for the same nodes, so a key has nothing to do. One that does not
        // parse is a slip of the caller's all the same.
        headers::idempotency_key(headers)?;
        headers::check_those_of_reads(headers)?;
        Ok(AdminIntent {
            caller: self.app.accounts.caller(headers)?,
            deadline: self.deadline()?,
            redirect: params.flag("redirect")?,
        })
    }

    /// The 401 and the 403. `node` is the one that the path names: that there is none goes before
    /// that the caller may not touch it.
    pub(crate) async fn check_admin(&self, intent: &AdminIntent, node: Option<u64>) -> Result<(), Problem> {
        let caller = intent.caller.clone()?;
        if caller == Caller::Root {
            return Ok(());
        }
        // He is refused in any case, so that a stale answer of this node would do; but only the others know
        // whether somebody whom it does not know is nobody.
        self.check_known(&caller, intent.deadline).await?;
        if let Some(id) = node {
            let cluster = self.app.replica.cluster(intent.deadline).await;
            if !cluster.nodes.iter().any(|node| node.id == id) {
                return Err(Problem::refused(Rejection::new(
                    Code::NotFound,
                    format!("there is no node {id}"),
                )));
            }
        }
        Err(Problem::forbidden("only the administrator, root, may do this"))
    }

    /// `?redirect=true` on a node that does not lead: 307 to the leader. Where none is known, or its
    /// URL is not, the request goes its usual way and is answered there.
    pub(crate) async fn check_redirect(&self, intent: &AdminIntent) -> Result<(), Problem> {
        if !intent.redirect {
            return Ok(());
        }
        let status = self.app.replica.status();
        let Some(leader) = status.leader.filter(|leader| *leader != status.node) else {
            return Ok(());
        };
        let cluster = self.app.replica.cluster(intent.deadline).await;
        match cluster.nodes.into_iter().find(|node| node.id == leader) {
            Some(node) => Err(Problem::from_replica(
                ReplicaError::Redirect {
                    client_url: node.client_url,
                },
                false,
                self.path_and_query(),
            )),
            None => Ok(()),
        }
    }

    /// Waits for the replica, which keeps the deadline itself; should it once not, the caller still
    /// gets an answer.
    pub(crate) async fn administer<T>(
        &self,
        deadline: Instant,
        asked: impl Future<Output = Result<T, AdminError>>,
    ) -> Result<T, Problem> {
        let is_read = self.parts.method.is_safe();
        tokio::time::timeout_at(latest(deadline), asked)
            .await
            .unwrap_or_else(|_| Err(ReplicaError::CommitUnknown("no answer in time".to_owned()).into()))
            .map_err(|error| Problem::from_admin(error, is_read, self.path_and_query()))
    }
}
