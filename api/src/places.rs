//! How many requests of each kind may be at work. Each kind has places of its own, so that readers
//! who wait for a majority do not keep writers out, and nobody keeps the administrator out.
//!
//! Nobody waits for a place: who finds none is refused and comes back, here or to another node.

use std::sync::Arc;

use prometheus::{IntCounter, IntGauge};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Limits;
use crate::front::Rule;
use crate::metrics::{Gauged, Metrics};
use crate::problem::{Kind, Problem};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Read,
    Write,
    /// The cluster's own routes: what an operator does about an overload must not fall victim to it.
    Admin,
    /// Long waits by agreement: for a lock, for news.
    Wait,
    /// Open event streams.
    Stream,
    /// Open WebSockets. What they ask has places among the writes.
    Socket,
    /// A body that did not come with its head. Apart from writes, so that bodies which drip in keep
    /// out only their like.
    Body,
}

impl Class {
    /// None for what is answered even when the node is overloaded.
    pub(crate) fn of(route: &str, rule: Rule) -> Option<Self> {
        match rule {
            Rule::Probe => None,
            _ if route == "/v1/cluster" || route.starts_with("/v1/cluster/") => Some(Self::Admin),
            Rule::Read => Some(Self::Read),
            Rule::Write(_) => Some(Self::Write),
        }
    }

    /// As metrics name it.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Read => "reads",
            Self::Write => "writes",
            Self::Admin => "administration",
            Self::Wait => "waits",
            Self::Stream => "streams",
            Self::Socket => "sockets",
            Self::Body => "bodies",
        }
    }

    /// Completes "too many … on this node".
    fn plural(self) -> &'static str {
        match self {
            Self::Read => "reads at work",
            Self::Write => "writes at work",
            Self::Admin => "administrative requests at work",
            Self::Wait => "requests that wait",
            Self::Stream => "open streams",
            Self::Socket => "open sockets",
            Self::Body => "bodies arriving",
        }
    }

    const ALL: [Self; 7] = [
        Self::Read,
        Self::Write,
        Self::Admin,
        Self::Wait,
        Self::Stream,
        Self::Socket,
        Self::Body,
    ];
}

/// All places of a node.
pub(crate) struct Places {
    /// In the order of [`Class::ALL`].
    classes: [Seats; Class::ALL.len()],
}

struct Seats {
    free: Arc<Semaphore>,
    taken: IntGauge,
    refused: IntCounter,
}

/// A place, held until it is dropped.
pub(crate) struct Place {
    _seat: OwnedSemaphorePermit,
    _counted: Gauged,
}

impl Places {
    pub(crate) fn new(limits: &Limits, metrics: &Metrics) -> Self {
        let classes = Class::ALL.map(|class| {
            let places = match class {
                Class::Read => limits.reads_max,
                Class::Write => limits.writes_max,
                Class::Admin => limits.admin_max,
                Class::Wait => limits.waits_max,
                Class::Stream => limits.streams_max,
                Class::Socket => limits.sockets_max,
                Class::Body => limits.bodies_max,
            };
            Seats {
                free: Arc::new(Semaphore::new(places)),
                taken: match class {
                    // As old as the streams themselves, and on many a chart.
                    Class::Stream => metrics.streams.clone(),
                    _ => metrics.in_flight.with_label_values(&[class.label()]),
                },
                refused: metrics.refused.with_label_values(&[class.label()]),
            }
        });
        Self { classes }
    }

    fn seats(&self, class: Class) -> &Seats {
        &self.classes[class as usize]
    }

    pub(crate) fn take(&self, class: Class) -> Result<Place, Problem> {
        let seats = self.seats(class);
        match Arc::clone(&seats.free).try_acquire_owned() {
            Ok(seat) => Ok(Place {
                _seat: seat,
                _counted: Gauged::new(&seats.taken),
            }),
            Err(_) => {
                seats.refused.inc();
                Err(full(class))
            }
        }
    }

    /// Refuses what would find no place now, before anything is done for it.
    pub(crate) fn look(&self, class: Class) -> Result<(), Problem> {
        let seats = self.seats(class);
        if seats.free.available_permits() > 0 {
            return Ok(());
        }
        seats.refused.inc();
        Err(full(class))
    }
}

fn full(class: Class) -> Problem {
    Problem::new(Kind::Overloaded, format!("too many {} on this node", class.plural()))
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;

    #[test]
    fn one_full_class_leaves_all_others_open() {
        let limits = Limits {
            reads_max: 1,
            writes_max: 1,
            admin_max: 1,
            waits_max: 1,
            streams_max: 1,
            sockets_max: 1,
            bodies_max: 1,
            ..Limits::default()
        };
        for full in Class::ALL {
            let metrics = Metrics::new(Registry::new());
            let places = Places::new(&limits, &metrics);
            let held = places.take(full).ok().unwrap();
            assert_eq!(places.look(full).unwrap_err().code(), "overloaded");
            for class in Class::ALL {
                assert_eq!(places.take(class).is_ok(), class != full, "{class:?} beside {full:?}");
                let refused = metrics.refused.with_label_values(&[class.label()]).get();
                assert_eq!(refused, if class == full { 2 } else { 0 });
            }
            drop(held);
            assert!(places.take(full).is_ok());
        }
    }

    #[test]
    fn the_clusters_routes_are_administration() {
        assert_eq!(Class::of("/v1/cluster/nodes/{id}", Rule::Read), Some(Class::Admin));
        assert_eq!(Class::of("/v1/cluster", Rule::Read), Some(Class::Admin));
        assert_eq!(Class::of("/v1/clusters", Rule::Read), Some(Class::Read));
        assert_eq!(Class::of("/v1/cluster", Rule::Probe), None);
    }
}
