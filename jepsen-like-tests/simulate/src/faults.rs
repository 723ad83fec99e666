//! What is done to a simulated cluster, as the dice of its seed say.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use rand::RngExt;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;

/// Between the beginnings of two faults.
const PAUSE_MS: std::ops::Range<u64> = 50..2500;
/// Until a crashed node is started again, and until a broken link is mended.
const LASTS_MS: std::ops::Range<u64> = 50..6000;
/// Longest sync of a slow disk.
const SLOW_SYNC_MS: std::ops::Range<u64> = 20..400;
/// Longest way of a message over a slow network; a network that is well takes up to [`LATENCY_MS_MAX`].
const SLOW_LATENCY_MS: std::ops::Range<u64> = 20..200;
pub(crate) const LATENCY_MS_MAX: u64 = 5;
/// What the membership shrinks to and grows to.
const MEMBERS_MIN: usize = 3;
const MEMBERS_MAX: usize = 6;
const JUMP_MS: std::ops::Range<i64> = -7_200_000..7_200_000;

/// How a link is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// What is sent waits, as TCP makes it wait behind lost packets.
    Hold,
    /// What is sent is lost, and connections with it.
    Drop,
    /// The same in one direction.
    OneWay,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The process ends and its connections with it; what was not synced is lost.
    Crash {
        nodes: Vec<u64>,
    },
    /// The same, and nobody is told.
    PowerLoss {
        nodes: Vec<u64>,
    },
    /// No messages between the two sides.
    Partition {
        cut: Cut,
        one: Vec<u64>,
        other: Vec<u64>,
    },
    SlowDisk {
        node: u64,
        sync_ms_max: u64,
    },
    SlowNetwork {
        latency_ms_max: u64,
    },
    ClockJump {
        node: u64,
        by_ms: i64,
    },
    Snapshot {
        node: u64,
    },
    Transfer,
    AddNode,
    RemoveNode {
        node: u64,
    },
    /// A node is lost for ever, and another takes its place.
    ReplaceNode {
        node: u64,
    },
}

impl Fault {
    /// For counting.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Crash { nodes } if nodes.len() > 1 => "crash of several",
            Self::Crash { .. } => "crash",
            Self::PowerLoss { nodes } if nodes.len() > 1 => "power loss of several",
            Self::PowerLoss { .. } => "power loss",
            Self::Partition { cut: Cut::Hold, .. } => "partition (held)",
            Self::Partition { cut: Cut::Drop, .. } => "partition (dropped)",
            Self::Partition { cut: Cut::OneWay, .. } => "partition (one way)",
            Self::SlowDisk { .. } => "slow disk",
            Self::SlowNetwork { .. } => "slow network",
            Self::ClockJump { .. } => "clock jump",
            Self::Snapshot { .. } => "snapshot",
            Self::Transfer => "transfer",
            Self::AddNode => "node added",
            Self::RemoveNode { .. } => "node removed",
            Self::ReplaceNode { .. } => "node replaced",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// What the dice may choose from.
pub(crate) struct Situation {
    /// Members that are not lost for ever.
    pub(crate) members: BTreeSet<u64>,
    pub(crate) running: BTreeSet<u64>,
    /// Links that are broken already, by their two ends, the smaller first.
    pub(crate) broken: BTreeMap<(u64, u64), Cut>,
    /// Whether the membership may change: no other change is known to be under way.
    pub(crate) may_change: bool,
    pub(crate) leader: Option<u64>,
}

/// The next fault, how long it lasts, and when the one after it comes.
pub(crate) struct Drawn {
    pub(crate) fault: Option<Fault>,
    pub(crate) lasts: Duration,
    pub(crate) pause: Duration,
}

pub(crate) fn draw(dice: &mut ChaCha8Rng, situation: &Situation) -> Drawn {
    let fault = draw_fault(dice, situation);
    // Most are short, some long.
    let longest = LASTS_MS.start.max(LASTS_MS.end >> dice.random_range(0..5));
    Drawn {
        fault,
        lasts: Duration::from_millis(dice.random_range(LASTS_MS.start..=longest)),
        pause: Duration::from_millis(dice.random_range(PAUSE_MS)),
    }
}

fn draw_fault(dice: &mut ChaCha8Rng, situation: &Situation) -> Option<Fault> {
    let running: Vec<u64> = situation.running.iter().copied().collect();
    let members: Vec<u64> = situation.members.iter().copied().collect();
    let any = *running.choose(dice)?;
    // Leaders are where it hurts.
    let node = situation.leader.filter(|_| dice.random_bool(0.4)).unwrap_or(any);
    let several = |dice: &mut ChaCha8Rng| {
        let mut nodes = running.clone();
        nodes.shuffle(dice);
        let all = dice.random_bool(0.5);
        nodes.truncate(if all { nodes.len() } else { nodes.len().div_ceil(2) });
        nodes
    };
    Some(match dice.random_range(0..100) {
        0..16 => Fault::Crash { nodes: vec![node] },
        16..20 => Fault::Crash { nodes: several(dice) },
        20..28 => Fault::PowerLoss { nodes: vec![node] },
        28..32 => Fault::PowerLoss { nodes: several(dice) },
        32..52 => partition(dice, situation, &members, node)?,
        52..58 => Fault::SlowDisk {
            node,
            sync_ms_max: dice.random_range(SLOW_SYNC_MS),
        },
        58..62 => Fault::SlowNetwork {
            latency_ms_max: dice.random_range(SLOW_LATENCY_MS),
        },
        62..68 => Fault::ClockJump {
            node,
            by_ms: dice.random_range(JUMP_MS),
        },
        68..84 => Fault::Snapshot { node },
        84..88 => Fault::Transfer,
        88..92 if situation.may_change && members.len() < MEMBERS_MAX => Fault::AddNode,
        92..96 if situation.may_change && members.len() > MEMBERS_MIN => Fault::RemoveNode { node },
        96..100 if situation.may_change => Fault::ReplaceNode { node },
        _ => return None,
    })
}

fn partition(dice: &mut ChaCha8Rng, situation: &Situation, members: &[u64], node: u64) -> Option<Fault> {
    let cut = *[Cut::Hold, Cut::Drop, Cut::OneWay].choose(dice)?;
    let mut others: Vec<u64> = members.iter().copied().filter(|other| *other != node).collect();
    others.shuffle(dice);
    let (one, other) = match dice.random_range(0..3) {
        // One link: each of the two is still reached by the others.
        0 => (vec![node], others.into_iter().take(1).collect()),
        1 => (vec![node], others),
        _ => {
            let with = dice.random_range(0..=others.len() / 2);
            let rest = others.split_off(with);
            ([vec![node], others].concat(), rest)
        }
    };
    let links = || one.iter().flat_map(|a| other.iter().map(|b| link(*a, *b)));
    if other.is_empty() || links().any(|link| situation.broken.contains_key(&link)) {
        return None;
    }
    Some(Fault::Partition { cut, one, other })
}

pub(crate) fn link(a: u64, b: u64) -> (u64, u64) {
    (a.min(b), a.max(b))
}
