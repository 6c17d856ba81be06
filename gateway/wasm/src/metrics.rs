//! Figures that a plugin keeps of its own, bounded in number and size.
//!
//! Defined once, when the plugin is configured; every instance defines the same again and gets the
//! same numbers. Adding to a figure takes a shared lock only to find its labels, and an atomic
//! addition: workers do not wait for each other unless a combination of labels is new.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

/// Metrics of one plugin.
pub const MAX_METRICS: usize = 64;
/// Labels of one metric.
pub const MAX_LABELS: usize = 8;
/// Combinations of label values, all metrics of a plugin together.
pub const MAX_SERIES: usize = 1000;
/// Bounds of one histogram.
pub const MAX_BUCKETS: usize = 32;
/// Name of a metric or label, in bytes.
pub const MAX_METRIC_NAME: usize = 64;
/// Text of a metric for those who read it, in bytes; what is beyond is cut off.
pub const MAX_METRIC_HELP: usize = 256;
/// Value of a label, in bytes; what is beyond is cut off.
pub const MAX_LABEL_VALUE: usize = 128;

/// The number of a metric that is not kept.
const NOT_KEPT: u32 = u32::MAX;
/// Names that the gateway has for figures about plugins, without the common beginning.
const RESERVED: [&str; 15] = [
    "calls_total",
    "call_duration_seconds",
    "faults_total",
    "traps_total",
    "instances",
    "instances_created_total",
    "memory_high_bytes",
    "waited_total",
    "cancelled_total",
    "log_lines_dropped_total",
    "breaker_open",
    "log_calls_dropped_total",
    "cpu_seconds_total",
    "shared_bytes",
    "metrics_dropped_total",
];

/// What a metric is.
#[derive(Clone, Debug, PartialEq)]
pub enum MetricKind {
    Counter,
    Gauge,
    /// With its upper bounds, ascending.
    Histogram(Vec<f64>),
}

/// A metric as it was defined.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricSpec {
    pub name: String,
    pub help: String,
    pub kind: MetricKind,
    pub labels: Vec<String>,
}

/// Why a metric cannot be defined.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum MetricError {
    #[error(
        "the name of a metric or label is not 1 to 64 letters, digits and '_' after the first, \
         or is the gateway's own"
    )]
    Name,
    #[error("a metric has more than {MAX_LABELS} labels, or one twice")]
    Labels,
    #[error("the bounds of a histogram are not 1 to {MAX_BUCKETS} ascending numbers")]
    Buckets,
    #[error("a metric is defined again as something else")]
    Redefined,
}

/// All metrics of one plugin.
#[derive(Debug, Default)]
pub struct PluginMetrics {
    families: RwLock<Vec<Arc<Family>>>,
    /// Shared with those that this one took over from.
    series: Arc<AtomicUsize>,
    dropped: AtomicU64,
    /// Of the configuration before this one: what is defined again goes on counting.
    previous: Mutex<Vec<Arc<Family>>>,
}

#[derive(Debug)]
struct Family {
    spec: MetricSpec,
    /// Where its series are counted, together with those of the others.
    count: Arc<AtomicUsize>,
    series: RwLock<HashMap<Box<[String]>, Arc<Series>>>,
}

/// Figures under one combination of labels. Numbers are bits of `f64`.
#[derive(Debug)]
struct Series {
    value: AtomicU64,
    /// Observations by bucket, not cumulated; the last one has no bound.
    buckets: Box<[AtomicU64]>,
}

/// One metric with its figures, as they are now.
#[derive(Clone, Debug)]
pub struct MetricFamily {
    pub spec: MetricSpec,
    /// In the order of label values.
    pub series: Vec<MetricSeries>,
}

/// One combination of label values.
#[derive(Clone, Debug)]
pub struct MetricSeries {
    pub labels: Vec<String>,
    /// Of a histogram, the sum.
    pub value: f64,
    /// Of a histogram, observations by bucket, not cumulated; one more than there are bounds.
    pub buckets: Vec<u64>,
}

impl PluginMetrics {
    /// An empty set that takes over the figures of `previous` where it is defined in the same way.
    pub(crate) fn after(previous: Option<&Self>) -> Self {
        let Some(previous) = previous else {
            return Self::default();
        };
        Self {
            previous: Mutex::new(previous.list()),
            series: Arc::clone(&previous.series),
            ..Self::default()
        }
    }

    /// Defines a metric, or finds it if it is defined already, and answers its number.
    pub(crate) fn define(&self, spec: MetricSpec) -> Result<u32, MetricError> {
        spec.check()?;
        let mut families = self
            .families
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = families.iter().position(|f| f.spec.name == spec.name) {
            if families[at].spec != spec {
                return Err(MetricError::Redefined);
            }
            return Ok(u32::try_from(at).unwrap_or(NOT_KEPT));
        }
        if families.len() == MAX_METRICS {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return Ok(NOT_KEPT);
        }
        let previous = self.previous.lock();
        let previous = previous.unwrap_or_else(PoisonError::into_inner);
        let before = previous.iter().find(|family| family.spec == spec);
        families.push(before.cloned().unwrap_or_else(|| {
            Arc::new(Family {
                spec,
                count: Arc::clone(&self.series),
                series: RwLock::default(),
            })
        }));
        Ok(u32::try_from(families.len() - 1).unwrap_or(NOT_KEPT))
    }

    /// Forgets what the configuration before defined and this one did not. It is gone, and counts
    /// no more, when the last instance of that configuration is.
    pub(crate) fn settle(&self) {
        let previous = self.previous.lock();
        previous.unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(crate) fn add(&self, metric: u32, delta: f64, labels: Vec<String>) {
        self.with(metric, labels, |spec, series| {
            let is_allowed = match spec.kind {
                MetricKind::Counter => delta >= 0.0,
                MetricKind::Gauge => true,
                MetricKind::Histogram(_) => false,
            };
            if is_allowed && delta.is_finite() {
                series.add(delta);
            }
        });
    }

    pub(crate) fn set(&self, metric: u32, value: f64, labels: Vec<String>) {
        self.with(metric, labels, |spec, series| {
            if spec.kind == MetricKind::Gauge {
                series.value.store(value.to_bits(), Ordering::Relaxed);
            }
        });
    }

    pub(crate) fn observe(&self, metric: u32, value: f64, labels: Vec<String>) {
        self.with(metric, labels, |spec, series| {
            if let MetricKind::Histogram(bounds) = &spec.kind
                && value.is_finite()
            {
                let bucket = bounds.partition_point(|bound| *bound < value);
                series.buckets[bucket].fetch_add(1, Ordering::Relaxed);
                series.add(value);
            }
        });
    }

    /// Definitions and additions that were beyond the bounds.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Every metric as it is now, in the order of definition.
    pub fn families(&self) -> Vec<MetricFamily> {
        let families = self.list();
        families.iter().map(|family| family.read()).collect()
    }

    fn list(&self) -> Vec<Arc<Family>> {
        let families = self.families.read();
        families.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn with(&self, metric: u32, mut labels: Vec<String>, f: impl FnOnce(&MetricSpec, &Series)) {
        let families = self.families.read().unwrap_or_else(PoisonError::into_inner);
        let Some(family) = families.get(metric as usize) else {
            return;
        };
        if labels.len() != family.spec.labels.len() {
            return;
        }
        for label in &mut labels {
            label.truncate(label.floor_char_boundary(MAX_LABEL_VALUE));
        }
        let found = family.series.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(series) = found.get(labels.as_slice()) {
            return f(&family.spec, series);
        }
        drop(found);
        let mut series = family
            .series
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if !series.contains_key(labels.as_slice())
            && self.series.fetch_add(1, Ordering::Relaxed) >= MAX_SERIES
        {
            self.series.fetch_sub(1, Ordering::Relaxed);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let new = || Arc::new(Series::new(&family.spec.kind));
        f(
            &family.spec,
            series.entry(labels.into()).or_insert_with(new),
        );
    }
}

impl MetricSpec {
    fn check(&self) -> Result<(), MetricError> {
        // A histogram is written as three more names.
        let suffixes = ["_bucket", "_sum", "_count"];
        let stem = suffixes.iter().find_map(|s| self.name.strip_suffix(s));
        let is_reserved = |name: &str| RESERVED.contains(&name);
        if !is_name(&self.name) || is_reserved(&self.name) || stem.is_some_and(is_reserved) {
            return Err(MetricError::Name);
        }
        // "plugin" and "le" are the gateway's to write.
        let names = &self.labels;
        if names
            .iter()
            .any(|l| !is_name(l) || l == "plugin" || l == "le")
        {
            return Err(MetricError::Name);
        }
        let is_twice = (1..names.len()).any(|at| names[..at].contains(&names[at]));
        if names.len() > MAX_LABELS || is_twice {
            return Err(MetricError::Labels);
        }
        if let MetricKind::Histogram(bounds) = &self.kind {
            let is_ascending = bounds.windows(2).all(|pair| pair[0] < pair[1]);
            let is_finite = bounds.iter().all(|bound| bound.is_finite());
            if !(1..=MAX_BUCKETS).contains(&bounds.len()) || !is_ascending || !is_finite {
                return Err(MetricError::Buckets);
            }
        }
        Ok(())
    }
}

fn is_name(text: &str) -> bool {
    (1..=MAX_METRIC_NAME).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !text.starts_with(|c: char| c.is_ascii_digit())
}

impl Family {
    fn read(&self) -> MetricFamily {
        let series = self.series.read().unwrap_or_else(PoisonError::into_inner);
        let mut series: Vec<_> = series
            .iter()
            .map(|(labels, series)| MetricSeries {
                labels: labels.to_vec(),
                value: f64::from_bits(series.value.load(Ordering::Relaxed)),
                buckets: series
                    .buckets
                    .iter()
                    .map(|count| count.load(Ordering::Relaxed))
                    .collect(),
            })
            .collect();
        series.sort_by(|a, b| a.labels.cmp(&b.labels));
        MetricFamily {
            spec: self.spec.clone(),
            series,
        }
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        let series = self
            .series
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        self.count.fetch_sub(series.len(), Ordering::Relaxed);
    }
}

impl Series {
    fn new(kind: &MetricKind) -> Self {
        let buckets = match kind {
            MetricKind::Counter | MetricKind::Gauge => 0,
            MetricKind::Histogram(bounds) => bounds.len() + 1,
        };
        Self {
            value: AtomicU64::new(0.0_f64.to_bits()),
            buckets: (0..buckets).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    fn add(&self, delta: f64) {
        let add = |bits| Some((f64::from_bits(bits) + delta).to_bits());
        // Never refused: the function always answers a number.
        let _ = self
            .value
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, kind: MetricKind, labels: &[&str]) -> MetricSpec {
        MetricSpec {
            name: name.into(),
            help: "help".into(),
            kind,
            labels: labels.iter().map(|l| (*l).to_owned()).collect(),
        }
    }

    fn value(metrics: &PluginMetrics, at: usize) -> f64 {
        metrics.families()[at].series[0].value
    }

    #[test]
    fn a_definition_is_checked_and_found_again() {
        let metrics = PluginMetrics::default();
        let bounds = |bounds: &[f64]| MetricKind::Histogram(bounds.to_vec());
        let cases = [
            (spec("", MetricKind::Counter, &[]), MetricError::Name),
            (spec("1a", MetricKind::Counter, &[]), MetricError::Name),
            (spec("a-b", MetricKind::Counter, &[]), MetricError::Name),
            (
                spec("calls_total", MetricKind::Gauge, &[]),
                MetricError::Name,
            ),
            (
                spec("calls_total_count", MetricKind::Gauge, &[]),
                MetricError::Name,
            ),
            (spec("a", MetricKind::Gauge, &["plugin"]), MetricError::Name),
            (
                spec("a", MetricKind::Gauge, &["x", "x"]),
                MetricError::Labels,
            ),
            (spec("a", bounds(&[]), &[]), MetricError::Buckets),
            (spec("a", bounds(&[2.0, 1.0]), &[]), MetricError::Buckets),
            (spec("a", bounds(&[f64::NAN]), &[]), MetricError::Buckets),
        ];
        for (spec, want) in cases {
            assert_eq!(metrics.define(spec.clone()), Err(want), "{spec:?}");
        }
        assert_eq!(metrics.define(spec("a", MetricKind::Counter, &[])), Ok(0));
        assert_eq!(metrics.define(spec("b", MetricKind::Counter, &[])), Ok(1));
        assert_eq!(metrics.define(spec("a", MetricKind::Counter, &[])), Ok(0));
        let other = metrics.define(spec("a", MetricKind::Gauge, &[]));
        assert_eq!(other, Err(MetricError::Redefined));
    }

    #[test]
    fn a_figure_takes_what_fits_its_kind() {
        let metrics = PluginMetrics::default();
        let counter = metrics.define(spec("c", MetricKind::Counter, &[])).unwrap();
        let gauge = metrics
            .define(spec("g", MetricKind::Gauge, &["l"]))
            .unwrap();
        let bounds = MetricKind::Histogram(vec![1.0, 2.0]);
        let histogram = metrics.define(spec("h", bounds, &[])).unwrap();
        metrics.add(counter, 2.0, vec![]);
        metrics.add(counter, -1.0, vec![]);
        metrics.add(counter, f64::NAN, vec![]);
        metrics.set(counter, 9.0, vec![]);
        metrics.add(counter, 1.0, vec!["too many".into()]);
        metrics.add(99, 1.0, vec![]);
        metrics.set(gauge, 5.0, vec!["x".into()]);
        metrics.add(gauge, -7.0, vec!["x".into()]);
        for value in [0.5, 1.0, 1.5, 9.0] {
            metrics.observe(histogram, value, vec![]);
        }
        assert_eq!([0, 1, 2].map(|at| value(&metrics, at)), [2.0, -2.0, 12.0]);
        assert_eq!(metrics.families()[2].series[0].buckets, [2, 1, 1]);
    }

    #[test]
    fn metrics_and_series_are_bounded() {
        let metrics = PluginMetrics::default();
        for n in 0..MAX_METRICS + 1 {
            let defined = metrics.define(spec(&format!("m{n}"), MetricKind::Counter, &["l"]));
            assert_eq!(defined.unwrap() == NOT_KEPT, n == MAX_METRICS);
        }
        for n in 0..MAX_SERIES + 10 {
            metrics.add(0, 1.0, vec![n.to_string()]);
        }
        metrics.add(0, 1.0, vec!["0".into()]);
        assert_eq!(metrics.families()[0].series.len(), MAX_SERIES);
        assert_eq!(metrics.dropped(), 11);
    }

    #[test]
    fn figures_outlive_a_new_configuration_of_the_plugin() {
        let first = PluginMetrics::default();
        first
            .define(spec("gone", MetricKind::Counter, &[]))
            .unwrap();
        let kept = first
            .define(spec("kept", MetricKind::Counter, &[]))
            .unwrap();
        first.add(0, 1.0, vec![]);
        first.add(kept, 3.0, vec![]);
        let second = PluginMetrics::after(Some(&first));
        let kept = second.define(spec("kept", MetricKind::Counter, &[]));
        second.settle();
        second.add(kept.unwrap(), 1.0, vec![]);
        assert_eq!(value(&second, 0), 4.0);
        // A call of before that still goes on.
        first.add(0, 1.0, vec![]);
        drop(first);
        assert_eq!(second.series.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn series_of_configurations_that_are_gone_do_not_count() {
        let mut metrics = PluginMetrics::default();
        for generation in 0..5 {
            let name = format!("m{generation}");
            metrics
                .define(spec(&name, MetricKind::Counter, &["l"]))
                .unwrap();
            let refused = PluginMetrics::after(Some(&metrics));
            refused
                .define(spec("refused", MetricKind::Counter, &["l"]))
                .unwrap();
            for n in 0..MAX_SERIES / 3 {
                metrics.add(0, 1.0, vec![n.to_string()]);
                refused.add(0, 1.0, vec![n.to_string()]);
            }
            drop(refused);
            let next = PluginMetrics::after(Some(&metrics));
            next.settle();
            assert_eq!(metrics.dropped(), 0, "generation {generation}");
            metrics = next;
        }
        assert_eq!(metrics.series.load(Ordering::Relaxed), 0);
    }
}
