//! `metrics`: figures of the plugin's own.

use crate::bindings::postern::plugin::metrics::Host;
use crate::component::Phase;
use crate::error::Breach;
use crate::host::HostState;
use crate::limits::breach;
use crate::limits::push_escaped;
use crate::metrics::MAX_METRIC_HELP;
use crate::metrics::MetricKind;
use crate::metrics::MetricSpec;

impl HostState {
    fn define(
        &mut self,
        name: String,
        help: &str,
        kind: MetricKind,
        labels: Vec<String>,
    ) -> wasmtime::Result<u32> {
        self.meter
            .take_bytes(name.len() + help.len() + sum(&labels))?;
        if self.phase != Phase::Configure {
            return Err(breach(Breach::Phase));
        }
        let mut line = String::new();
        push_escaped(&mut line, help, MAX_METRIC_HELP);
        let spec = MetricSpec {
            name,
            help: line,
            kind,
            labels,
        };
        let defined = self.powers.metrics.define(spec);
        defined.map_err(|error| breach(Breach::Metric(error)))
    }

    fn take_labels(&mut self, labels: &[String]) -> wasmtime::Result<()> {
        self.meter.take_bytes(sum(labels))
    }
}

impl Host for HostState {
    fn counter(
        &mut self,
        name: String,
        help: String,
        labels: Vec<String>,
    ) -> wasmtime::Result<u32> {
        self.define(name, &help, MetricKind::Counter, labels)
    }

    fn gauge(&mut self, name: String, help: String, labels: Vec<String>) -> wasmtime::Result<u32> {
        self.define(name, &help, MetricKind::Gauge, labels)
    }

    fn histogram(
        &mut self,
        name: String,
        help: String,
        labels: Vec<String>,
        buckets: Vec<f64>,
    ) -> wasmtime::Result<u32> {
        self.define(name, &help, MetricKind::Histogram(buckets), labels)
    }

    fn add(&mut self, metric: u32, delta: f64, labels: Vec<String>) -> wasmtime::Result<()> {
        self.take_labels(&labels)?;
        self.powers.metrics.add(metric, delta, labels);
        Ok(())
    }

    fn set(&mut self, metric: u32, value: f64, labels: Vec<String>) -> wasmtime::Result<()> {
        self.take_labels(&labels)?;
        self.powers.metrics.set(metric, value, labels);
        Ok(())
    }

    fn observe(&mut self, metric: u32, value: f64, labels: Vec<String>) -> wasmtime::Result<()> {
        self.take_labels(&labels)?;
        self.powers.metrics.observe(metric, value, labels);
        Ok(())
    }
}

fn sum(labels: &[String]) -> usize {
    labels.iter().map(String::len).sum()
}
