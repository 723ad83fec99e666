//! Where a case is tried: the node with its fault, and what holds of every refusal.

use std::time::Duration;

use quorate_api::replica::ReplicaError;
use quorate_api::{Accounts, ApiConfig, Limits};

use super::case::{Case, Fault};
use super::world::World;
use super::{check, unchanged};
use crate::caller::{Node, Reply};

/// A node for each kind of fault that is the node's, all over one replica: whatever any of them has changed,
/// the others would show.
pub(super) struct Bench<'a> {
    world: &'a World,
    open: Node,
    enforced: Node,
    impatient: Node,
}

impl<'a> Bench<'a> {
    pub(super) fn new(world: &'a World) -> Self {
        let open = world.node(ApiConfig::default());
        let over = |config| Node::over(open.replica.clone(), config);
        let limited = |limits| ApiConfig {
            limits,
            ..ApiConfig::default()
        };
        let enforced = over(ApiConfig {
            accounts: Accounts {
                enforced: true,
                ..Accounts::default()
            },
            ..ApiConfig::default()
        });
        let impatient = over(limited(Limits {
            body_read_timeout: Duration::from_millis(1),
            ..Limits::default()
        }));
        Self {
            world,
            open,
            enforced,
            impatient,
        }
    }

    /// It is refused as the case says, and changes nothing.
    pub(super) async fn refuses(&self, case: &Case) {
        let before = self.open.replica.state();
        let (node, reply) = self.ask(case).await;
        unchanged(case, &before, &node.replica.state());
        check(case, &node, &reply);
    }

    /// The answer, and the node that gave it. What was refused before the log was asked never came to it.
    async fn ask(&self, case: &Case) -> (Node, Reply) {
        let node = self.node_for(case).await;
        let arrived = |node: &Node| {
            let admin = node.replica.admin.lock().unwrap().asked.len();
            node.replica.writes.lock().unwrap().len() + admin
        };
        let before = arrived(&node);
        let reply = node
            .call(case.ask.to_request(matches!(case.fault, Fault::SlowBody)))
            .await;
        assert_eq!(node.replica.faults_left(), 0, "{case}: the fault was not met");
        let early = [
            "bad_request",
            "method_not_allowed",
            "unsupported_media_type",
            "too_large",
            "rate_limited",
        ];
        if early.contains(&case.code) {
            assert_eq!(arrived(&node), before, "{case}: it came to the replica");
        }
        (node, reply)
    }

    async fn node_for(&self, case: &Case) -> Node {
        let shared = |node: &Node| Node {
            replica: node.replica.clone(),
            router: node.router.clone(),
        };
        // A fault is for this request, and not for what an earlier one may still have under way.
        let own = || self.world.node(ApiConfig::default());
        match case.fault.clone() {
            Fault::Nothing => shared(&self.open),
            Fault::Enforced => shared(&self.enforced),
            Fault::Bound(_, reach) => {
                let mut limits = Limits::default();
                reach(&mut limits);
                let config = ApiConfig {
                    limits,
                    ..ApiConfig::default()
                };
                Node::over(self.open.replica.clone(), config)
            }
            Fault::SlowBody => shared(&self.impatient),
            Fault::Limited => self.used_up(case).await,
            Fault::Read(error) => {
                let node = own();
                node.replica.fail_next(error);
                node
            }
            Fault::Write(error) => {
                let node = own();
                node.replica.fail_next_write(error);
                node
            }
            Fault::Admin(error) => {
                let node = own();
                node.replica.admin.lock().unwrap().faults.push_back(error);
                node
            }
            Fault::Status(change) => {
                let node = own();
                node.replica.set_status(change);
                node
            }
        }
    }

    /// A node at which the caller may ask no more for now.
    async fn used_up(&self, case: &Case) -> Node {
        if case.ask.path() == "/v1/sessions" {
            // Who signs in is nobody yet: tries are counted, whatever became of them.
            let node = self.world.node(ApiConfig::default());
            for _ in 0..10 {
                node.replica.fail_next(ReplicaError::NoLeader);
                node.call(case.ask.to_request(false)).await.problem(503, "no_leader");
            }
            return node;
        }
        let limits = Limits {
            user_requests_per_s: 1,
            ..Limits::default()
        };
        let node = self.world.node(ApiConfig {
            limits,
            ..ApiConfig::default()
        });
        let mut first = case.ask.clone().to("/v1/rooms/hall".to_owned());
        (first.method, first.body) = ("GET".to_owned(), None);
        node.call(first.to_request(false)).await.expect(200);
        node
    }
}
