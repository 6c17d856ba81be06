"""The report: medians of the rounds as Markdown tables."""

import os
import platform
import re
import statistics
import subprocess
from pathlib import Path

# Others on the proxy's core take its caches and its turns, and so raise its CPU time as well.
QUIET_SHARE = 0.05


def scenario_table(scenario, rows):
    """`rows`: a list of (peer, samples, notes); a sample is None for a round that failed."""
    reference = samples_of(rows, scenario.reference)
    lines = [
        f"### {scenario.name}: {scenario.about}",
        "",
        f"| peer | requests/s | p50 ms | p99 ms | CPU µs/request | CPU ÷ {scenario.reference} (range) "
        "| proxy on core | others on core | RSS MiB | errors |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    for peer, samples, _ in rows:
        cells = [_label(scenario, peer), *_figures(samples, reference), _errors(samples)]
        lines.append(f"| {' | '.join(cells)} |")
    notes = [f"- **{peer.name}**: {note}" for peer, _, notes in rows for note in notes]
    if notes:
        lines += ["", "Not as it should be, so read these rows with care:", "", *notes]
    disturbed = [s.core_others for _, samples, _ in rows for s in samples if s]
    if disturbed and statistics.median(disturbed) > QUIET_SHARE:
        lines += [
            "",
            f"**The machine was not quiet**: others had {statistics.median(disturbed):.0%} of the "
            "proxy's core (median of all rounds), so the figures are too high and the ratios rough.",
        ]
    return "\n".join(lines)


def samples_of(rows, name):
    return next((samples for peer, samples, _ in rows if peer.name == name), [])


def _label(scenario, peer):
    if scenario.policy and not peer.has_policy:
        return f"{peer.name} (no policy, for reference)"
    return peer.name


def _figures(samples, reference):
    done = [sample for sample in samples if sample]
    if not done:
        return ["-"] * 8

    def median(value):
        return statistics.median(value(sample) for sample in done)

    ratios = cpu_ratios(samples, reference)
    ratio = "-"
    if ratios:
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    return [
        f"{median(lambda s: s.rate):,.0f}",
        f"{median(lambda s: s.p50_us) / 1000:.2f}",
        f"{median(lambda s: s.p99_us) / 1000:.2f}",
        f"{median(lambda s: s.cpu_us):,.1f}",
        ratio,
        f"{median(lambda s: s.core_busy):.0%}",
        f"{median(lambda s: s.core_others):.0%}",
        f"{median(lambda s: s.rss_bytes) / 2**20:.1f}",
    ]


def cpu_ratios(samples, reference):
    """CPU a request over that of the reference in the same round, for the rounds that have both."""
    return ratios(samples, reference, lambda sample: sample.cpu_us)


def ratios(samples, reference, value):
    pairs = zip(samples, reference, strict=False)
    return [value(mine) / value(other) for mine, other in pairs if mine and other]


def _errors(samples):
    counts = {}
    for sample in samples:
        for kind, count in (sample.errors if sample else {"failed rounds": 1}).items():
            counts[kind] = counts.get(kind, 0) + count
    if not samples:
        return "**DID NOT RUN**"
    if not counts:
        return "0"
    return "**ERRORS: " + ", ".join(f"{count} {kind}" for kind, count in counts.items()) + "**"


def summary_table(results):
    """CPU a request over nginx, one row a peer and one column a scenario."""
    results = [each for each in results if each[0].reference == "nginx"]
    names = list(dict.fromkeys(peer.name for _, rows in results for peer, _, _ in rows))
    lines = [
        "### CPU a request ÷ nginx, all scenarios",
        "",
        "| peer | " + " | ".join(scenario.name for scenario, _ in results) + " |",
        "|---|" + "--:|" * len(results),
    ]
    for name in names:
        cells = []
        for _, rows in results:
            by_name = {peer.name: samples for peer, samples, _ in rows}
            ratios = cpu_ratios(by_name.get(name, []), by_name.get("nginx", []))
            cells.append(f"{statistics.median(ratios):.2f}" if ratios else "-")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def machine_facts(peers, missing, options):
    facts = [
        f"{os.cpu_count()} cores, {_processor()}, Linux {platform.release()}, load average "
        f"{os.getloadavg()[0]:.2f} at the start",
        f"proxy on core {options.proxy_core}; load and upstream on core {options.load_core}",
        f"{options.rounds} rounds of {options.seconds} s after a warm-up, peers interleaved",
    ]
    facts += [f"{peer.name}: {peer.version()}" for peer in peers]
    facts += [f"{name}: **not there, so not measured**" for name in missing]
    facts += [f"wrk: {_version(['wrk', '-v'])}", f"h2load: {_version(['h2load', '--version'])}"]
    return "\n".join(f"- {fact}" for fact in facts)


def _processor():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _version(argv):
    # `wrk -v` prints its version and ends with 1.
    run = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return re.search(r"\d+\.\d+\.\d+\S*", run.stdout)[0]
