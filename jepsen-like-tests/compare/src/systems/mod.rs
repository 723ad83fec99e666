//! The systems: how each is started, and how its work is driven.

mod bare;
mod etcd;
mod etcd_wire;
mod nats;
mod quorate;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use quorate_bench::{Load, Plan, Target, run};

pub(crate) use self::bare::Bare;
pub(crate) use self::etcd::Etcd;
pub(crate) use self::nats::Nats;
pub(crate) use self::quorate::{MESSAGES, Quorate, beside_this_program};
use crate::cpu::Watch;
use crate::figures::Sample;
use crate::servers::Servers;
use crate::work::Work;

/// An operation without an answer for so long is dropped, and counted.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Of a room, the first message that is written by the work.
pub(crate) const FIRST_SEQ: u64 = MESSAGES + 1;

/// How all work is done.
#[derive(Debug, Clone)]
pub(crate) struct How {
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
    pub(crate) sample: usize,
    pub(crate) rooms: usize,
}

/// A program, and where its directories are to be.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) binary: PathBuf,
    pub(crate) dir: PathBuf,
}

impl Program {
    fn servers(&self, name: &str) -> Result<Servers> {
        Servers::new(name, &self.dir)
    }

    fn binary(&self) -> &Path {
        &self.binary
    }
}

/// A system that runs.
#[async_trait(?Send)]
pub(crate) trait System {
    /// Has it do the work, which must be one that it does.
    async fn work(&mut self, work: Work, how: &How) -> Result<Sample>;
}

/// Drives the target in the closed loop, and looks at what that costs the servers and the generator.
async fn measure(target: impl Target, work: Work, how: &How, servers: &Servers) -> Result<Sample> {
    let plan = Plan {
        load: Load::Closed {
            clients: work.clients(),
        },
        warm_up: how.warm_up,
        duration: how.duration,
        answer_within: ANSWER_WITHIN,
        sample: how.sample,
    };
    plan.check()?;
    let watch = Watch::start(servers.ids(), plan.warm_up, plan.duration);
    let report = run(Arc::new(target), plan, Arc::default()).await;
    servers.check()?;
    let used = tokio::task::spawn_blocking(|| watch.end()).await??;
    Ok(Sample::new(report, used))
}
