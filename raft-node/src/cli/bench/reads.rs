//! `quorate bench history` and `read`.

use clap::ValueEnum;
use quorate_bench::Report;
use quorate_bench::quorate::{PagePlace, Pages, Reads};
use serde::Serialize;

use super::flags::Common;
use super::workload::{Scene, Workload};
use crate::cli::exit::Failure;

/// Messages of a room before the load.
pub(super) const MESSAGES_MAX: u64 = 100_000_000;

const HISTORY_EXAMPLES: &str = "Examples:
  quorate bench history --clients 64
  quorate bench history --page newest --limit 100 --level local
  quorate bench history --rooms 1 --messages 1000000 --cleanup";

/// What is read, and how fresh it must be.
#[derive(Debug, Clone, clap::Args, Serialize)]
pub(crate) struct Held {
    /// Messages that each room is given before
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=MESSAGES_MAX))]
    pub(super) messages: u64,
    /// linearizable: reflects every acknowledged write; local: what the asked node has
    #[arg(long, value_enum, default_value_t = Level::Linearizable)]
    pub(super) level: Level,
}

#[derive(Debug, Clone, Copy, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    Linearizable,
    Local,
}

impl From<Level> for quorate_client::Level {
    fn from(level: Level) -> Self {
        match level {
            Level::Linearizable => quorate_client::Level::Linearizable,
            Level::Local => quorate_client::Level::Local,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Page {
    /// Anywhere in the room, a full page
    Any,
    Newest,
}

#[derive(Debug, clap::Args, Serialize)]
#[command(after_help = HISTORY_EXAMPLES)]
pub(crate) struct History {
    /// Messages of a page
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
    limit: u32,
    /// Which page
    #[arg(long, value_enum, default_value_t = Page::Any)]
    page: Page,
    #[command(flatten)]
    #[serde(flatten)]
    held: Held,
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) common: Common,
}

impl Workload for History {
    const NAME: &'static str = "history";
    const UNITS: &'static str = "pages";
    type Outcome = Report;

    fn common(&self) -> &Common {
        &self.common
    }

    fn messages(&self) -> u64 {
        self.held.messages
    }

    async fn work(&self, scene: Scene) -> Result<Report, Failure> {
        let place = match self.page {
            Page::Any => PagePlace::Any,
            Page::Newest => PagePlace::Newest,
        };
        let (http, stage) = (scene.http.clone(), scene.stage.clone());
        scene
            .drive(Pages::new(http, stage, self.held.level.into(), place, self.limit))
            .await
    }
}

const READ_EXAMPLES: &str = "Examples:
  quorate bench read --clients 64
  quorate bench read --level local --nodes followers --rate 5000";

#[derive(Debug, clap::Args, Serialize)]
#[command(after_help = READ_EXAMPLES)]
pub(crate) struct Read {
    #[command(flatten)]
    #[serde(flatten)]
    held: Held,
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) common: Common,
}

impl Workload for Read {
    const NAME: &'static str = "read";
    const UNITS: &'static str = "reads";
    type Outcome = Report;

    fn common(&self) -> &Common {
        &self.common
    }

    fn messages(&self) -> u64 {
        self.held.messages
    }

    async fn work(&self, scene: Scene) -> Result<Report, Failure> {
        let (http, stage) = (scene.http.clone(), scene.stage.clone());
        scene.drive(Reads::new(http, stage, self.held.level.into())).await
    }
}
