//! What plugins cost, and what they count themselves.

use std::sync::Arc;

use postern_wasm::Plugin;
use postern_wasm::metrics::MetricFamily;
use postern_wasm::metrics::MetricKind;
use postern_wasm::metrics::MetricSeries;
use postern_wasm::stats::CALL_BUCKETS;
use postern_wasm::stats::PluginStats;

use super::Page;
use crate::policy::Policy;
use crate::snapshot::Snapshot;

pub(super) fn render(out: &mut Page, snapshot: &Snapshot) {
    let policies = snapshot.policies.iter();
    let plugins = policies.filter_map(|policy| match &**policy {
        Policy::Plugin(live) => Some(&live.plugin),
        Policy::Native(_) | Policy::Absent(_) => None,
    });
    let plugins: Vec<(&Arc<Plugin>, PluginStats)> = plugins.map(|p| (p, p.totals())).collect();
    render_calls(out, &plugins);
    render_faults(out, &plugins);
    render_figures(out, &plugins);
    render_own(out, &plugins);
}

fn render_calls(out: &mut Page, plugins: &[(&Arc<Plugin>, PluginStats)]) {
    const CALLS: &str = "postern_plugin_calls_total";
    out.head(CALLS, "counter", "Calls of plugins by phase.");
    for (plugin, stats) in plugins {
        for phase in stats.phases() {
            let labels = [
                ("plugin", plugin.name().as_str()),
                ("phase", phase.phase.as_str()),
            ];
            out.line(CALLS, &labels, phase.calls);
        }
    }
    out.head(
        "postern_plugin_call_duration_seconds",
        "histogram",
        "How long calls took, waiting included; one call of sixteen is timed.",
    );
    for (plugin, stats) in plugins {
        for phase in stats.phases() {
            let name = plugin.name().as_str();
            let labels = [("plugin", name), ("phase", phase.phase.as_str())];
            let mut total = 0;
            for (index, count) in phase.buckets.iter().enumerate() {
                total += count;
                let bound = CALL_BUCKETS.get(index);
                let bound =
                    bound.map_or_else(|| "+Inf".to_owned(), |us| (*us as f64 / 1e6).to_string());
                let labels = [labels[0], labels[1], ("le", bound.as_str())];
                out.line(
                    "postern_plugin_call_duration_seconds_bucket",
                    &labels,
                    total,
                );
            }
            let seconds = phase.timed.as_secs_f64();
            out.line("postern_plugin_call_duration_seconds_sum", &labels, seconds);
            out.line("postern_plugin_call_duration_seconds_count", &labels, total);
        }
    }
}

fn render_faults(out: &mut Page, plugins: &[(&Arc<Plugin>, PluginStats)]) {
    const FAULTS: &str = "postern_plugin_faults_total";
    out.head(FAULTS, "counter", "Calls that failed, by reason.");
    for (plugin, stats) in plugins {
        for (reason, count) in stats.faults().filter(|(_, count)| *count > 0) {
            let labels = [("plugin", plugin.name().as_str()), ("reason", reason)];
            out.line(FAULTS, &labels, count);
        }
    }
    const TRAPS: &str = "postern_plugin_traps_total";
    out.head(TRAPS, "counter", "Traps of plugins, by kind.");
    for (plugin, stats) in plugins {
        for (kind, count) in stats.traps().filter(|(_, count)| *count > 0) {
            let labels = [("plugin", plugin.name().as_str()), ("kind", kind)];
            out.line(TRAPS, &labels, count);
        }
    }
}

fn render_figures(out: &mut Page, plugins: &[(&Arc<Plugin>, PluginStats)]) {
    let mut figure =
        |name: &str, kind: &str, help: &str, value: &dyn Fn(&Plugin, &PluginStats) -> f64| {
            out.head(name, kind, help);
            for (plugin, stats) in plugins {
                let labels = [("plugin", plugin.name().as_str())];
                out.line(name, &labels, value(plugin, stats));
            }
        };
    figure(
        "postern_plugin_cpu_seconds_total",
        "counter",
        "Processor time of plugins, by samples of a millisecond.",
        &|_, stats| stats.cpu().as_secs_f64(),
    );
    figure(
        "postern_plugin_instances",
        "gauge",
        "Instances that exist.",
        &|_, stats| stats.live() as f64,
    );
    figure(
        "postern_plugin_instances_created_total",
        "counter",
        "Instances that were made.",
        &|_, stats| stats.created() as f64,
    );
    figure(
        "postern_plugin_memory_high_bytes",
        "gauge",
        "Memory of the largest instance so far.",
        &|_, stats| stats.memory_high() as f64,
    );
    figure(
        "postern_plugin_shared_bytes",
        "gauge",
        "Bytes of shared state.",
        &|plugin, _| plugin.shared_bytes().unwrap_or_default() as f64,
    );
    figure(
        "postern_plugin_waited_total",
        "counter",
        "Calls that waited for an instance.",
        &|_, stats| stats.waited() as f64,
    );
    figure(
        "postern_plugin_cancelled_total",
        "counter",
        "Calls that were dropped before their end, with their instance.",
        &|_, stats| stats.cancelled() as f64,
    );
    figure(
        "postern_plugin_log_lines_dropped_total",
        "counter",
        "Log lines beyond the plugin's limit.",
        &|_, stats| stats.log_dropped() as f64,
    );
    figure(
        "postern_plugin_log_calls_dropped_total",
        "counter",
        "Calls at the end of an exchange that could not be kept up with.",
        &|_, stats| stats.log_calls_dropped() as f64,
    );
    figure(
        "postern_plugin_metrics_dropped_total",
        "counter",
        "Metrics and label values of plugins beyond their bounds.",
        &|plugin, _| plugin.metrics().dropped() as f64,
    );
    figure(
        "postern_plugin_breaker_open",
        "gauge",
        "1 while a plugin that failed too often is not called.",
        &|plugin, _| f64::from(u8::from(plugin.is_suspended())),
    );
}

/// Figures of the plugins' own. A name has one type on the page: where two plugins disagree, the
/// first by name is heeded.
fn render_own(out: &mut Page, plugins: &[(&Arc<Plugin>, PluginStats)]) {
    let families = plugins.iter().flat_map(|(plugin, _)| {
        let families = plugin.metrics().families().into_iter();
        families.map(|family| (plugin.name().as_str(), family))
    });
    let mut families: Vec<(&str, MetricFamily)> = families.collect();
    families.sort_by(|(_, a), (_, b)| a.spec.name.cmp(&b.spec.name));
    for same in families.chunk_by(|(_, a), (_, b)| a.spec.name == b.spec.name) {
        let spec = &same[0].1.spec;
        let name = format!("postern_plugin_{}", spec.name);
        let kind = word(&spec.kind);
        out.head(&name, kind, &spec.help.replace('\\', "\\\\"));
        for (plugin, family) in same.iter().filter(|(_, f)| word(&f.spec.kind) == kind) {
            for series in &family.series {
                render_series(out, &name, plugin, family, series);
            }
        }
    }
}

fn word(kind: &MetricKind) -> &'static str {
    match kind {
        MetricKind::Counter => "counter",
        MetricKind::Gauge => "gauge",
        MetricKind::Histogram(_) => "histogram",
    }
}

fn render_series(
    out: &mut Page,
    name: &str,
    plugin: &str,
    family: &MetricFamily,
    series: &MetricSeries,
) {
    let values: Vec<String> = series.labels.iter().map(|text| escaped(text)).collect();
    let names = family.spec.labels.iter().map(String::as_str);
    let own = names.zip(values.iter().map(String::as_str));
    let labels: Vec<(&str, &str)> = std::iter::once(("plugin", plugin)).chain(own).collect();
    let MetricKind::Histogram(bounds) = &family.spec.kind else {
        out.line(name, &labels, series.value);
        return;
    };
    let mut total = 0;
    for (index, count) in series.buckets.iter().enumerate() {
        total += count;
        let bound = bounds.get(index);
        let bound = bound.map_or_else(|| "+Inf".to_owned(), f64::to_string);
        let mut labels = labels.clone();
        labels.push(("le", bound.as_str()));
        out.line(&format!("{name}_bucket"), &labels, total);
    }
    out.line(&format!("{name}_sum"), &labels, series.value);
    out.line(&format!("{name}_count"), &labels, total);
}

/// A label's value as the format wants it. A plugin may have made it of what a client sent.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_sent_stays_in_its_label() {
        let cases = [
            ("plain ä", "plain ä"),
            ("a\"b", r#"a\"b"#),
            (r"a\b", r"a\\b"),
            ("a\nb\r\u{1b}", "a\\nb\u{fffd}\u{fffd}"),
        ];
        for (text, want) in cases {
            assert_eq!(escaped(text), want);
        }
    }
}
