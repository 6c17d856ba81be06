#!/usr/bin/env python3
"""Runs the gateway beside nginx, HAProxy, Envoy and Caddy, and reports what each request costs.

    tests/bench/setup.sh               # once
    python3 tests/bench/bench.py      # see README.md, and --help

It measures and reports; it asserts nothing. It ends with 1 only when nothing could be measured.
"""

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import budgets
import check
import peers as proxies
import report
from changes import Changes, ChangesFailed
from load import HOST, SCENARIOS, Load, LoadFailed
from process import Process, StartFailed, core_busy_seconds, free_ports

CHECKOUT = Path(__file__).resolve().parents[2]
TOOLS = CHECKOUT / ".cache/bench/bin"
ENVOY_FILTER = CHECKOUT / ".cache/bench/envoy-filter.wasm"
SETTLE_SECONDS = 0.3


@dataclass(frozen=True)
class Sample:
    """One peer in one round."""

    requests: int
    rate: float
    p50_us: float
    p99_us: float
    cpu_us: float
    core_busy: float
    core_others: float
    rss_bytes: int
    errors: dict


def measure(process, load, scenario, site, seconds, core, rate=None):
    """Runs the load once and relates its requests to the CPU time that the proxy spent."""
    core_before, before, start = core_busy_seconds(core), process.cpu_seconds(), time.monotonic()
    result = load.run(scenario, site, seconds, rate)
    spent, elapsed = process.cpu_seconds() - before, time.monotonic() - start
    others = core_busy_seconds(core) - core_before - spent
    if not result.requests:
        raise LoadFailed(f"no request was answered: {result.errors}")
    return Sample(
        requests=result.requests,
        rate=result.requests / result.seconds,
        p50_us=result.p50_us,
        p99_us=result.p99_us,
        cpu_us=spent / result.requests * 1e6,
        core_busy=spent / elapsed,
        core_others=max(0.0, others / elapsed),
        rss_bytes=process.rss_bytes(),
        errors=result.errors,
    )


class Contender:
    """A peer in one scenario: its process, its samples, and what is wrong with them."""

    def __init__(self, peer, site, core):
        self.peer = peer
        self.site = site
        self.core = core
        self.process = None
        self.samples = []
        self.notes = []
        self.requests = 0
        self.rate = None

    def start(self):
        command = self.peer.command(self.peer.program, self.site)
        # HAProxy logs to its standard output, which is therefore its access log.
        own_output = self.peer.name != "haproxy"
        output = self.site.folder / "output" if own_output else self.site.access_log
        self.process = Process(self.peer.name, command.argv, self.core, output, command.env)
        if self.peer.is_gateway:
            port, path = self.site.admin_port, "/ready"
        else:
            port, path = self.site.http_port, "/"
        self.process.wait_until(lambda: check.answers(port, path), f"port {port}{path}")

    def complain(self, *notes):
        for note in notes:
            line = " ".join(note.split())  # one line, whatever a program printed
            say(f"    !! {self.peer.name}: {line}")
            self.notes.append(line)

    def inspect(self, load, scenario):
        """Complains where the proxy does less than it is measured for."""
        try:
            self.complain(*check.forwarding(self.site, scenario.tls))
            if scenario.tls:
                self.complain(*check.tls(load, self.site))
            if scenario.policy and self.peer.has_policy:
                self.complain(*check.policy(self.site))
        except (OSError, ValueError, LoadFailed) as error:
            self.complain(f"the check could not be made: {error!r}")

    def run_round(self, load, scenario, seconds, keep=True):
        changes = Changes(self.site) if self.peer.is_changing else contextlib.nullcontext()
        try:
            with changes:
                sample = measure(
                    self.process, load, scenario, self.site, seconds, self.core, self.rate
                )
        except (LoadFailed, ChangesFailed) as error:
            self.complain(str(error))
            sample = None
        if sample and not keep and scenario.pace:
            self.rate = sample.rate * scenario.pace
        if keep:
            self.samples.append(sample)
        if sample:
            self.requests += sample.requests
            if sample.errors:
                self.complain(f"errors in a {'round' if keep else 'warm-up'}: {sample.errors}")
        return sample

    def finish(self):
        if not self.process.running():
            self.complain(f"it ended while it was measured: {self.process.tail()}")
        self.process.stop()
        if self.requests:
            self.complain(*check.access_log(self.site, self.requests))


def run_scenario(scenario, peers, setting, options):
    """Returns a list of (peer, samples, notes), in the order of `peers`."""
    say(f"{scenario.name}: {scenario.about}")
    contenders = []
    with contextlib.ExitStack() as stack:
        for peer in peers:
            site = setting.site(peer, scenario, options)
            contender = Contender(peer, site, options.proxy_core)
            contenders.append(contender)
            try:
                # Before the start, so that a process which fails to get ready is stopped too.
                stack.callback(lambda c=contender: c.process and c.process.stop())
                contender.start()
                contender.inspect(setting.load, scenario)
            except (StartFailed, OSError) as error:
                contender.complain(f"it did not start: {error}")
        running = [each for each in contenders if each.process and each.process.running()]

        for contender in running:
            contender.run_round(setting.load, scenario, max(1, options.seconds // 2), keep=False)
        for number in range(1, options.rounds + 1):
            for contender in running:
                # What the round before left to do must not be counted in this one.
                time.sleep(SETTLE_SECONDS)
                sample = contender.run_round(setting.load, scenario, options.seconds)
                if sample:
                    say(
                        f"  round {number}  {contender.peer.name:8} {sample.rate:9,.0f}/s  "
                        f"{sample.cpu_us:8.1f} µs CPU/request"
                    )
        for contender in running:
            contender.finish()
    for contender in contenders:
        shutil.rmtree(contender.site.folder)
    return [(each.peer, each.samples, each.notes) for each in contenders]


class Setting:
    """What all peers share in a run: certificate, upstream and load, in one temporary folder."""

    def __init__(self, folder, options):
        self.folder = folder
        self.certificate, self.key = make_certificate(folder)
        self.load = Load(folder, options.load_core)
        self.upstream_port = 0
        site = self._site("upstream")
        program = proxies.find_program("nginx", TOOLS)
        small, large = "x" * check.SMALL_BODY_BYTES, b"x" * check.LARGE_BODY_BYTES
        command = proxies.upstream(program, site, small, large)
        self.upstream = Process("upstream", command.argv, options.load_core, site.folder / "output")
        self.upstream_port = site.http_port
        try:
            self.upstream.wait_until(lambda: check.answers(site.http_port), "the upstream")
        except StartFailed:
            self.upstream.stop()
            raise

    def site(self, peer, scenario, options):
        if not scenario.policy:
            return self._site(peer.name, **peer.setting)
        programs = {"gateway_plugin": options.plugin, "envoy_filter": ENVOY_FILTER}
        return self._site(peer.name, **programs, **peer.setting)

    def alone(self, name):
        return self._site(f"alone-{name}")

    def _site(self, name, **policy):
        folder = self.folder / name.replace(", ", "-").replace(" ", "-")
        folder.mkdir()
        http, https, admin = free_ports(3)
        return proxies.Site(
            folder=folder,
            http_port=http,
            https_port=https,
            admin_port=admin,
            upstream_port=self.upstream_port,
            certificate=self.certificate,
            key=self.key,
            **policy,
        )


def make_certificate(folder):
    """A self-signed certificate with an ECDSA P-256 key, for this run only."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    argv += ["-nodes", "-days", "30", "-subj", f"/CN={HOST}", "-addext"]
    argv += [f"subjectAltName=DNS:{HOST}", "-keyout", key, "-out", certificate]
    subprocess.run(argv, check=True, stderr=subprocess.DEVNULL)
    return certificate, key


def peers_for(scenario, peers, options):
    """Those that take part; leaves out, aloud, the ones that lack what the scenario needs."""
    gateway = [peer for peer in peers if peer.is_gateway]
    if scenario.hosts:
        many = [each.variant(f"{scenario.hosts} hosts", hosts=scenario.hosts) for each in gateway]
        return gateway + many
    if scenario.name == "reload":
        peers = gateway + [each.variant("changing", is_changing=True) for each in gateway]
    if not scenario.policy:
        return peers
    if scenario.name == "h1-policy":
        peers = peers + [each.variant("fresh instances", fresh_instances=True) for each in gateway]
    policies = {"postern": options.plugin, "envoy": ENVOY_FILTER}
    able = []
    for peer in peers:
        wasm = policies.get("postern" if peer.is_gateway else peer.name)
        if peer.has_policy and not (wasm and wasm.is_file()):
            say(f"!! {scenario.name}: no Wasm policy for {peer.name}, so it is left out")
        else:
            able.append(peer)
    return able


def say(text):
    print(text, flush=True)


def arguments():
    names = [*(scenario.name for scenario in SCENARIOS), "alone"]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="of load a peer and round")
    parser.add_argument("--scenario", nargs="+", default=names, choices=names, metavar="NAME",
                        help=f"of {', '.join(names)}; all by default")
    parser.add_argument("--peers", nargs="+", metavar="NAME",
                        help="all that are installed by default; nginx is the reference")
    parser.add_argument("--gateway", type=Path, default=CHECKOUT / "target/release/postern")
    parser.add_argument("--plugin", type=Path, help="the header policy as a plugin, headers.wasm")
    parser.add_argument("--output", type=Path, help="write the report to this file as well")
    parser.add_argument("--proxy-core", type=int, default=0)
    parser.add_argument("--load-core", type=int, default=1)
    options = parser.parse_args()
    if options.rounds < 1 or options.seconds < 1:
        parser.error("at least one round of one second")
    cores = os.sched_getaffinity(0)
    if not {options.proxy_core, options.load_core} <= cores or len(cores) < 2:
        parser.error(f"two cores are needed, and these may be used: {sorted(cores)}")
    options.plugin = options.plugin and options.plugin.resolve()
    return options


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that `with` blocks clean up
    os.sched_setaffinity(0, {options.load_core})

    gateway = options.gateway.resolve() if options.gateway.is_file() else None
    peers, missing = proxies.all_peers(TOOLS, gateway)
    if options.peers:
        unknown = set(options.peers) - {peer.name for peer in peers} - set(missing)
        if unknown:
            sys.exit(f"there is no such peer: {', '.join(sorted(unknown))}")
        peers = [peer for peer in peers if peer.name in options.peers]
        missing = [name for name in missing if name in options.peers]
    if not gateway and "postern" in missing:
        say(f"!! there is no gateway at {options.gateway}, so only its peers are measured")
    if not peers or not proxies.find_program("nginx", TOOLS):
        sys.exit("nothing to measure; run tests/bench/setup.sh first")

    facts = report.machine_facts(peers, missing, options)
    say(facts)
    results, alone = [], None
    with tempfile.TemporaryDirectory(prefix="postern-bench-") as folder:
        os.chmod(folder, 0o755)
        setting = Setting(Path(folder), options)
        try:
            for scenario in SCENARIOS:
                if scenario.name in options.scenario:
                    able = peers_for(scenario, peers, options)
                    results.append((scenario, run_scenario(scenario, able, setting, options)))
            if gateway and "alone" in options.scenario:
                alone = budgets.Alone.measure(gateway, setting, options)
        finally:
            setting.upstream.stop()

    tables = [report.scenario_table(scenario, rows) for scenario, rows in results]
    tables += [report.summary_table(results), budgets.table(results, alone)]
    text = "\n\n".join([facts, *tables]) + "\n"
    say("\n" + text)
    if options.output:
        options.output.write_text(text)
    if not any(sample for _, rows in results for _, samples, _ in rows for sample in samples):
        sys.exit("nothing could be measured")


if __name__ == "__main__":
    main()
