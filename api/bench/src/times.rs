//! How long operations took.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Three significant digits: 1 part in 1000, at any size.
const DIGITS: u8 = 3;
/// What takes longer is shown as this: more than any time-out of the contract.
const MICROS_MAX: u64 = 600_000_000;

/// An HdrHistogram of microseconds.
#[derive(Debug, Clone)]
pub struct Times {
    micros: Histogram<u64>,
}

impl Default for Times {
    fn default() -> Self {
        let micros = Histogram::new_with_bounds(1, MICROS_MAX, DIGITS).expect("the bounds are in order");
        Self { micros }
    }
}

impl Times {
    pub fn record(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.micros.saturating_record(micros.clamp(1, MICROS_MAX));
    }

    pub fn count(&self) -> u64 {
        self.micros.len()
    }

    pub fn percentiles(&self) -> Percentiles {
        let at = |quantile: f64| self.micros.value_at_quantile(quantile) as f64 / 1000.0;
        Percentiles {
            count: self.count(),
            mean_ms: self.micros.mean() / 1000.0,
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p99_9_ms: at(0.999),
            max_ms: self.micros.max() as f64 / 1000.0,
        }
    }
}

/// Of no operation at all every figure is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    pub count: u64,
    pub mean_ms: f64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub p99_9_ms: f64,
    pub max_ms: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_a_thousandth() {
        let mut times = Times::default();
        for ms in 1..=1000 {
            times.record(Duration::from_millis(ms));
        }
        let found = times.percentiles();
        assert_eq!(found.count, 1000);
        for (found, exact) in [
            (found.p50_ms, 500.0),
            (found.p90_ms, 900.0),
            (found.p99_ms, 990.0),
            (found.p99_9_ms, 999.0),
            (found.max_ms, 1000.0),
            (found.mean_ms, 500.5),
        ] {
            assert!((found - exact).abs() <= exact / 500.0, "{found} is not {exact}");
        }
    }

    #[test]
    fn nothing_and_too_much_are_figures_too() {
        assert_eq!(Times::default().percentiles(), Percentiles::default());
        let mut times = Times::default();
        times.record(Duration::ZERO);
        times.record(Duration::from_secs(100_000));
        let found = times.percentiles();
        assert_eq!(found.count, 2);
        assert!(found.max_ms <= 600_600.0, "{found:?}");
    }
}
