"""What the project allows itself, beside what was measured."""

import http.client
import shutil
import statistics
import time
from dataclasses import dataclass

import check
import peers as proxies
from process import Process
from report import cpu_ratios, ratios, samples_of

MIB = 2**20
PLUGINS = 10
WORKERS = 2
STARTS = 5
# Connections, each with one request, so that every worker has run every plugin.
TOUCHES = 64


@dataclass(frozen=True)
class Alone:
    """One gateway without load."""

    idle_bytes: int
    # Of each plugin in each worker, when all have run.
    plugin_bytes: float | None
    # From the start of the process until it is ready, with the plugins compiled before.
    start_seconds: float | None

    @staticmethod
    def measure(gateway, setting, options):
        idle = _idle_bytes(gateway, setting, options)
        if not (options.plugin and options.plugin.is_file()):
            return Alone(idle, None, None)
        with_plugins, starts = _with_plugins(gateway, setting, options)
        share = (with_plugins - idle) / PLUGINS / WORKERS
        return Alone(idle, share, statistics.median(starts))


def _idle_bytes(gateway, setting, options):
    site = setting.alone("idle")
    process, _ = _start(gateway, site, options, _config(site, None, None))
    try:
        _touch(site)
        return process.rss_bytes()
    finally:
        process.stop()
        shutil.rmtree(site.folder)


def _with_plugins(gateway, setting, options):
    """Resident bytes with all plugins in use, and the seconds of each start but the first."""
    site = setting.alone("plugins")
    config, starts = _config(site, options.plugin, site.folder / "cache"), []
    try:
        for number in range(STARTS + 1):
            process, seconds = _start(gateway, site, options, config)
            try:
                if number == STARTS:
                    _touch(site)
                    resident = process.rss_bytes()
            finally:
                process.stop()
            if number:
                starts.append(seconds)
    finally:
        shutil.rmtree(site.folder)
    return resident, starts


def _start(gateway, site, options, config):
    path = site.write(proxies.GATEWAY_CONFIG, config)
    argv = [gateway, "run", "--config", path]
    start = time.monotonic()
    process = Process("postern", argv, options.proxy_core, site.folder / "output")
    while not check.answers(site.admin_port, "/ready"):
        if not process.running() or time.monotonic() - start > 60:
            process.stop()
            raise OSError(f"postern did not start: {process.tail()}")
        time.sleep(0.002)
    return process, time.monotonic() - start


def _touch(site):
    for _ in range(TOUCHES):
        connection = http.client.HTTPConnection("127.0.0.1", site.http_port, timeout=5)
        try:
            connection.request("GET", "/")
            connection.getresponse().read()
        finally:
            connection.close()
    time.sleep(0.5)


def _config(site, plugin, cache):
    names = [f"p{number}" for number in range(PLUGINS if plugin else 0)]
    text = f"""
[runtime]
workers = {WORKERS}
{f'cache-dir = "{cache}"' if cache else ''}
[access-log]
path = "{site.access_log}"
[admin]
bind = "127.0.0.1:{site.admin_port}"
[listeners.http]
bind = "127.0.0.1:{site.http_port}"
[upstreams.bench]
endpoints = ["127.0.0.1:{site.upstream_port}"]
"""
    for name in names:
        text += f"""
[plugins.{name}]
source = "{plugin}"
[plugins.{name}.config]
request = [ {{ set = {{ x-{name} = "1" }} }} ]
"""
    policies = ", ".join(f'"{name}"' for name in names)
    return text + f'[[routes]]\nrules = [ {{ upstream = "bench", policies = [{policies}] }} ]\n'


class Measured:
    """Figures of the run by scenario; None where one was left out or failed."""

    def __init__(self, results, alone):
        self._rows = {scenario.name: (scenario, rows) for scenario, rows in results}
        self.alone = alone

    def samples(self, scenario, name="postern"):
        _, rows = self._rows.get(scenario, (None, []))
        return samples_of(rows, name)

    def cpu(self, scenario, name="postern", reference="nginx"):
        return _median(cpu_ratios(self.samples(scenario, name), self.samples(scenario, reference)))

    def extra_us(self, scenario, name, than_scenario, than):
        """CPU time a request beyond that of another."""
        mine = _median([each.cpu_us for each in self.samples(scenario, name) if each])
        other = _median([each.cpu_us for each in self.samples(than_scenario, than) if each])
        return mine - other if mine is not None and other is not None else None

    def p99(self):
        samples, reference = self.samples("h1-paced"), self.samples("h1-paced", "nginx")
        return _median(ratios(samples, reference, lambda sample: sample.p99_us))

    def resident(self, scenario, name):
        return _median([each.rss_bytes for each in self.samples(scenario, name) if each])

    def hosts_mib(self):
        many, one = self.resident("hosts", "postern, 10000 hosts"), self.resident("hosts", "postern")
        return (many - one) / MIB if many is not None and one is not None else None

    def failed(self, scenario, name):
        samples = self.samples(scenario, name)
        if not samples:
            return None
        return sum(sum(each.errors.values()) if each else 1 for each in samples)


def _median(values):
    return statistics.median(values) if values else None


def _alone(value, scale=1.0):
    def measured(m):
        found = m.alone and getattr(m.alone, value)
        return found / scale if found is not None else None

    return measured


# What; the most that is allowed; its unit; how it is had.
BUDGETS = [
    ("CPU a request, HTTP/1.1 cleartext", 1.0, "x nginx", lambda m: m.cpu("h1")),
    ("the same over TLS 1.3", 0.8, "x nginx", lambda m: m.cpu("tls-h1")),
    (
        "the same, cleartext, with a Rust header policy",
        1.1,
        "x nginx without",
        lambda m: m.cpu("h1-policy"),
    ),
    (
        "the policy itself",
        2.5,
        "µs",
        lambda m: m.extra_us("h1-policy", "postern", "h1", "postern"),
    ),
    ("HTTP/2 over TLS", 1.05, "x nginx", lambda m: m.cpu("tls-h2")),
    ("CPU a full TLS 1.3 handshake", 0.75, "x nginx", lambda m: m.cpu("handshake")),
    ("CPU a 1 MiB body over TLS", 0.6, "x nginx", lambda m: m.cpu("1m")),
    ("p99 at 70 % of saturation", 1.0, "x nginx", lambda m: m.p99()),
    (
        "10,000 hosts x 3 paths: CPU a request",
        1.03,
        "x one route",
        lambda m: m.cpu("hosts", "postern, 10000 hosts", "postern"),
    ),
    ("10,000 hosts x 3 paths: memory above one route", 100, "MiB", lambda m: m.hosts_mib()),
    ("memory idle, without plugins", 25, "MiB", _alone("idle_bytes", MIB)),
    ("memory of a configured Rust plugin in a worker", 1.5, "MiB", _alone("plugin_bytes", MIB)),
    (
        "an instance for each request",
        30,
        "µs",
        lambda m: m.extra_us("h1-policy", "postern, fresh instances", "h1-policy", "postern"),
    ),
    ("start to ready with 10 cached plugins", 150, "ms", _alone("start_seconds", 0.001)),
    ("failed requests while all changes", 0, "", lambda m: m.failed("reload", "postern, changing")),
]


def table(results, alone):
    """Budget, measured and verdict, one row each."""
    measured = Measured(results, alone)
    lines = [
        "### Budgets",
        "",
        "| what | budget | measured | verdict |",
        "|---|--:|--:|---|",
    ]
    for what, most, unit, value in BUDGETS:
        found = value(measured)
        verdict = "not measured" if found is None else "met" if found <= most else "**missed**"
        shown = "-" if found is None else f"{found:.2f} {unit}".strip()
        lines.append(f"| {what} | <= {most:g} {unit} | {shown} | {verdict} |")
    return "\n".join(lines)
