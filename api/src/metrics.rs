//! What `/metrics` says about HTTP. The raft node registers its own metrics in the same registry.

use std::time::Duration;

use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    seconds: HistogramVec,
    /// By class.
    pub(crate) in_flight: IntGaugeVec,
    /// Requests that found no room, by the bound.
    pub(crate) refused: IntCounterVec,
    pub(crate) connections: IntGauge,
    /// Connections that were turned away or cut, by reason.
    pub(crate) connections_cut: IntCounterVec,
    pub(crate) streams: IntGauge,
    pub(crate) slow_consumers: IntCounter,
    /// Events of rooms that were written out, and those that were handed to readers: the same ones, many times.
    pub(crate) events_encoded: IntCounter,
    pub(crate) events_delivered: IntCounter,
    /// Bytes of events that are kept for all readers.
    pub(crate) tail_bytes: IntGauge,
    /// Messages of pages that were written out, and those whose bytes were there from another page.
    pub(crate) messages_written: IntCounter,
    pub(crate) messages_reused: IntCounter,
    /// What is kept of them takes so much.
    pub(crate) messages_kept_bytes: IntGauge,
}

/// Seconds. A write takes an fsync (about 1 ms) and a round trip, a time-out up to 60 s.
const BUCKETS: &[f64] = &[
    0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 60.0,
];

impl Metrics {
    /// # Panics
    /// When the registry already holds metrics of this crate: a registry serves one router.
    pub(crate) fn new(registry: Registry) -> Self {
        let requests = IntCounterVec::new(
            Opts::new(
                "quorate_http_requests_total",
                "Requests answered, by route, method and status.",
            ),
            &["route", "method", "status"],
        );
        let seconds = HistogramVec::new(
            HistogramOpts::new(
                "quorate_http_request_seconds",
                "Seconds to an answer (of a stream: to its beginning), by route.",
            )
            .buckets(BUCKETS.to_vec()),
            &["route"],
        );
        let cut = IntCounterVec::new(
            Opts::new(
                "quorate_http_connections_cut_total",
                "Connections that the node ended, by reason.",
            ),
            &["reason"],
        );
        let in_flight = IntGaugeVec::new(
            Opts::new(
                "quorate_http_requests_in_flight",
                "Requests at work, by class, without open streams.",
            ),
            &["class"],
        );
        let refused = IntCounterVec::new(
            Opts::new(
                "quorate_http_refused_total",
                "Requests that were refused for want of room, by the bound that was reached.",
            ),
            &["bound"],
        );
        let gauge = |name: &str, help: &str| IntGauge::new(name, help).expect("the name and help are valid");
        let counter = |name: &str, help: &str| IntCounter::new(name, help).expect("the name and help are valid");
        let metrics = Self {
            requests: requests.expect("the names are valid"),
            seconds: seconds.expect("the names are valid"),
            in_flight: in_flight.expect("the names are valid"),
            refused: refused.expect("the names are valid"),
            connections: gauge("quorate_http_connections", "Open client connections."),
            connections_cut: cut.expect("the names are valid"),
            streams: gauge("quorate_http_streams", "Open event streams."),
            slow_consumers: counter(
                "quorate_http_slow_consumers_total",
                "Streams ended because their reader was too slow.",
            ),
            events_encoded: counter(
                "quorate_http_stream_events_encoded_total",
                "Events of rooms that were written out for streams.",
            ),
            events_delivered: counter(
                "quorate_http_stream_events_delivered_total",
                "Events of rooms that were handed to streams' connections.",
            ),
            tail_bytes: gauge(
                "quorate_http_stream_tail_bytes",
                "Bytes of written events that are kept for all who follow a room.",
            ),
            messages_written: counter(
                "quorate_http_page_messages_written_total",
                "Messages of pages of history that were read from the state and written out.",
            ),
            messages_reused: counter(
                "quorate_http_page_messages_reused_total",
                "Messages of pages of history that were written out for an earlier page.",
            ),
            messages_kept_bytes: gauge(
                "quorate_http_page_kept_bytes",
                "Bytes of written messages that are kept for pages to come.",
            ),
            registry,
        };
        let collectors: [Box<dyn prometheus::core::Collector>; 14] = [
            Box::new(metrics.requests.clone()),
            Box::new(metrics.seconds.clone()),
            Box::new(metrics.in_flight.clone()),
            Box::new(metrics.refused.clone()),
            Box::new(metrics.connections.clone()),
            Box::new(metrics.connections_cut.clone()),
            Box::new(metrics.streams.clone()),
            Box::new(metrics.slow_consumers.clone()),
            Box::new(metrics.events_encoded.clone()),
            Box::new(metrics.events_delivered.clone()),
            Box::new(metrics.tail_bytes.clone()),
            Box::new(metrics.messages_written.clone()),
            Box::new(metrics.messages_reused.clone()),
            Box::new(metrics.messages_kept_bytes.clone()),
        ];
        for collector in collectors {
            metrics
                .registry
                .register(collector)
                .expect("a registry serves one router");
        }
        metrics
    }

    pub(crate) fn answered(&self, route: &str, method: &str, status: u16, took: Duration) {
        let mut digits = [0; 3];
        let status = three_digits(status, &mut digits);
        self.requests.with_label_values(&[route, method, status]).inc();
        self.seconds.with_label_values(&[route]).observe(took.as_secs_f64());
    }

    /// All metrics of the registry in Prometheus' text format.
    pub(crate) fn text(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }

    pub(crate) fn content_type() -> String {
        TextEncoder::new().format_type().to_owned()
    }
}

/// An HTTP status has three digits; written without an allocation.
fn three_digits(status: u16, digits: &mut [u8; 3]) -> &str {
    for (digit, power) in digits.iter_mut().zip([100, 10, 1]) {
        *digit = b'0' + u8::try_from(status / power % 10).expect("a digit is below 10");
    }
    std::str::from_utf8(digits).expect("digits are ASCII")
}

/// Counts up while it lives.
pub(crate) struct Gauged(IntGauge);

impl Gauged {
    pub(crate) fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Gauged {
    fn drop(&mut self) {
        self.0.dec();
    }
}
