"""The load: what each scenario asks for, the tool that asks, and what it counted."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HOST = "localhost"  # a name, because an address is not allowed in SNI
HERE = Path(__file__).parent

# What a browser sends beside Host and Connection.
HEADERS = [
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8",
    "Accept-Language: en-US,en;q=0.5",
    "Accept-Encoding: gzip, deflate, br",
    "Referer: https://www.example.org/shop/items?page=2",
    "Cookie: session=4d5c9a7be1f04c3f8a55c2be7d1d5f3a; theme=dark; consent=1",
    "Cache-Control: max-age=0",
    "Upgrade-Insecure-Requests: 1",
    "Sec-Fetch-Dest: document",
    "Sec-Fetch-Mode: navigate",
    "Sec-Fetch-Site: same-origin",
    "Priority: u=0, i",
]

# The client decides, so that every proxy spends the same on key exchange and encryption.
TLS_CIPHER = "TLS_AES_128_GCM_SHA256"
TLS_GROUP = "X25519"
OPENSSL_CONFIG = f"""
openssl_conf = init
[init]
ssl_conf = ssl
[ssl]
system_default = load
[load]
MinProtocol = TLSv1.3
Ciphersuites = {TLS_CIPHER}
Groups = {TLS_GROUP}
"""


class LoadFailed(Exception):
    """The load tool ended badly; the text says how."""


@dataclass(frozen=True)
class Scenario:
    name: str
    about: str
    tool: str  # wrk | h2load | handshake
    tls: bool
    path: str = "/api/v1/item"
    connections: int = 64
    policy: bool = False
    # Of the rate that the same proxy reaches when each connection asks again at once.
    pace: float | None = None
    # Requests go round this many host names; 0: one name.
    hosts: int = 0
    # Whose figures the others are divided by.
    reference: str = "nginx"


H2_STREAMS = 16
HOSTS = 10_000
# Of those, the ones that the load asks for: enough to miss every cache that is worth its name.
HOSTS_ASKED = 2_000
SCENARIOS = [
    Scenario("h1", "HTTP/1.1 keep-alive, cleartext, 1 KiB", "wrk", tls=False),
    Scenario("tls-h1", "HTTP/1.1 keep-alive over TLS 1.3, 1 KiB", "wrk", tls=True),
    Scenario(
        "tls-h2",
        f"HTTP/2 over TLS 1.3, {H2_STREAMS} streams a connection, 1 KiB",
        "h2load",
        tls=True,
        connections=16,
    ),
    Scenario(
        "handshake",
        "a full TLS 1.3 handshake for each request, 1 KiB",
        "handshake",
        tls=True,
        connections=8,
    ),
    Scenario(
        "1m",
        "HTTP/1.1 keep-alive over TLS 1.3, 1 MiB",
        "wrk",
        tls=True,
        path="/1m",
        connections=16,
    ),
    Scenario("h1-policy", "`h1` with the header policy in Wasm", "wrk", tls=False, policy=True),
    Scenario(
        "h1-paced",
        "`h1` at a steady rate, 70 % of what each proxy can do",
        "h2load",
        tls=False,
        pace=0.7,
    ),
    Scenario(
        "hosts",
        f"`h1` over {HOSTS:,} host names: one route for all, or one each with three rules",
        "wrk",
        tls=False,
        hosts=HOSTS,
        reference="postern",
    ),
    Scenario(
        "reload",
        "`h1` while the configuration, and then the plugin, changes every 100 ms",
        "wrk",
        tls=False,
        policy=True,
        reference="postern",
    ),
]


@dataclass(frozen=True)
class Result:
    requests: int
    seconds: float
    p50_us: float
    p99_us: float
    errors: dict  # kind -> count, only what happened


class Load:
    """The load tools, pinned to one core, with the files that they share."""

    def __init__(self, folder, core):
        self.folder = folder
        self.core = core
        self.headers = folder / "headers"
        self.headers.write_text("\n".join(HEADERS) + "\n")
        openssl = folder / "openssl.cnf"
        openssl.write_text(OPENSSL_CONFIG)
        self.env = {"OPENSSL_CONF": str(openssl), "BENCH_HEADERS": str(self.headers)}

    def run(self, scenario, site, seconds, rate=None):
        """`rate`: requests a second of all connections together; as fast as they go if None."""
        port = site.https_port if scenario.tls else site.http_port
        url = f"{'https' if scenario.tls else 'http'}://{HOST}:{port}{scenario.path}"
        match scenario.tool:
            case "wrk":
                return self._wrk(scenario, url, seconds)
            case "h2load":
                return self._h2load(scenario, url, port, seconds, rate)
            case "handshake":
                return self._handshake(scenario, port, seconds)

    def negotiated(self, port):
        """The TLS version, cipher and key exchange that the load gets on `port`, as one text."""
        argv = ["openssl", "s_client", "-brief", "-servername", HOST, "-connect"]
        text = self._tool([*argv, f"127.0.0.1:{port}"], 10)
        wanted = r"^(?:Protocol version|Ciphersuite|Server Temp Key|Peer Temp Key): ([\w.-]+)"
        return " ".join(re.findall(wanted, text, re.MULTILINE))

    def _wrk(self, scenario, url, seconds):
        argv = ["wrk", "-t1", f"-c{scenario.connections}", f"-d{seconds}s"]
        env = {"BENCH_HOSTS": str(min(scenario.hosts, HOSTS_ASKED))}
        text = self._tool([*argv, "-s", HERE / "wrk.lua", url], seconds + 30, env)
        found = re.search(r"^BENCH (.*)$", text, re.MULTILINE)
        if not found:
            raise LoadFailed(f"wrk reported nothing: {text}")
        return _result(json.loads(found[1]))

    def _handshake(self, scenario, port, seconds):
        argv = [sys.executable, HERE / "handshake.py", HOST, port, scenario.path, self.headers]
        return _result(json.loads(self._tool([*argv, seconds, scenario.connections], seconds + 30)))

    def _h2load(self, scenario, url, port, seconds, rate):
        log = self.folder / "h2load.log"
        log.unlink(missing_ok=True)
        # Without TLS only the paced scenario, which is about HTTP/1.
        version = [f"-m{H2_STREAMS}"] if scenario.tls else ["--h1", "-m1"]
        argv = ["h2load", "-t1", f"-c{scenario.connections}", *version, f"-D{seconds}"]
        if rate:
            argv.append(f"--rps={rate / scenario.connections:.3f}")
        argv += [f"--connect-to=127.0.0.1:{port}", f"--log-file={log}"]
        argv += [part for line in HEADERS for part in ("-H", line)]
        text = self._tool([*argv, url], seconds + 30)

        counts = re.search(r"(\d+) done, \d+ succeeded, (\d+) failed.* (\d+) timeout", text)
        statuses = re.search(r"(\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text)
        duration = re.search(r"finished in ([\d.]+)(m?s)", text)
        if not counts or not statuses or not duration:
            raise LoadFailed(f"h2load reported nothing: {text}")
        done, failed, timeout = map(int, counts.groups())
        latencies = sorted(_h2load_latencies(log))
        result = {
            "requests": done,
            "seconds": float(duration[1]) / (1000 if duration[2] == "ms" else 1),
            "p50_us": latencies[len(latencies) // 2] if latencies else 0,
            "p99_us": latencies[len(latencies) * 99 // 100] if latencies else 0,
            "bad_status": sum(int(count) for count in statuses.groups()[1:]),
            "failed": failed,
            "timeout": timeout,
            "not_http2": int(scenario.tls and "Application protocol: h2" not in text),
        }
        return _result(result)

    def _tool(self, argv, limit, env=None):
        def in_child():
            os.sched_setaffinity(0, {self.core})

        try:
            run = subprocess.run(
                [str(part) for part in argv],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, **self.env, **(env or {})},
                preexec_fn=in_child,
                timeout=limit,
            )
        except subprocess.TimeoutExpired:
            raise LoadFailed(f"{argv[0]} did not end within {limit} s") from None
        if run.returncode != 0:
            raise LoadFailed(f"{argv[0]} ended with {run.returncode}: {run.stdout.strip()[-600:]}")
        return run.stdout


def _h2load_latencies(log):
    """The third column of the log of h2load, of the requests that were answered."""
    with open(log, encoding="ascii") as lines:
        for line in lines:
            _, status, microseconds = line.split("\t")[:3]
            if status != "-1":
                yield int(microseconds)


def _result(values):
    core = {key: values.pop(key) for key in ("requests", "seconds", "p50_us", "p99_us")}
    errors = {kind.replace("_", " "): count for kind, count in values.items() if count}
    return Result(**core, errors=errors)
