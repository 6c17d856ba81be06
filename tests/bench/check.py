"""Whether a proxy does the work that it is measured for. A proxy that leaves some out is faster.

Each function returns the complaints as a list of sentences; an empty list means that all is well.
"""

import http.client
import ipaddress
import ssl

from load import HOST, TLS_CIPHER, TLS_GROUP

TIMEOUT_SECONDS = 5
SMALL_BODY_BYTES = 1024
LARGE_BODY_BYTES = 1024 * 1024


def answers(port, path="/", tls=False):
    """Whether a GET is answered with 200; false while nothing listens."""
    try:
        return get(port, path, tls)[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def get(port, path, tls=False, headers=None):
    """Status, response headers and body of one GET on a connection of its own."""
    if tls:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection = _TlsConnection(HOST, port, timeout=TIMEOUT_SECONDS, context=context)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", path, headers={"Host": f"{HOST}:{port}", **(headers or {})})
        response = connection.getresponse()
        body = response.read()
        return response.status, response.headers, body
    finally:
        connection.close()


class _TlsConnection(http.client.HTTPSConnection):
    """HTTPS to 127.0.0.1 whatever the name in the request resolves to."""

    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        create = self._create_connection
        self._create_connection = lambda to, *rest: create(("127.0.0.1", to[1]), *rest)


def forwarding(site, tls):
    """The four forwarded headers, and bodies that arrive whole."""
    port = site.https_port if tls else site.http_port
    # Where each host has a route of its own, there is none for the usual name.
    host = "host-1.example" if site.hosts else f"{HOST}:{port}"
    complaints = []
    _, _, body = get(port, "/headers", tls, {"Host": host})
    seen = dict(line.split("=", 1) for line in body.decode().splitlines())
    wanted = {
        "x-forwarded-proto": {"https" if tls else "http"},
        "x-forwarded-host": {host, host.partition(":")[0]},
        "x-real-ip": {"127.0.0.1"},
    }
    for name, allowed in wanted.items():
        if seen[name] not in allowed:
            complaints.append(f"the upstream got `{name}: {seen[name]}`")

    # Envoy puts the machine's own address in the place of a loopback address.
    if not _is_address(seen["x-forwarded-for"]):
        complaints.append(f"the upstream got `x-forwarded-for: {seen['x-forwarded-for']}`")

    for path, size in (("/api/v1/item", SMALL_BODY_BYTES), ("/1m", LARGE_BODY_BYTES)):
        status, _, body = get(port, path, tls, {"Host": host})
        if (status, len(body)) != (200, size):
            complaints.append(f"`GET {path}` gave status {status} and {len(body)} bytes")
    return complaints


def _is_address(text):
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def policy(site):
    """What the header policy of `h1-policy` does to a request and to its response."""
    complaints = []
    status, headers, body = get(site.http_port, "/api/headers", headers={"X-Internal": "1"})
    seen = dict(line.split("=", 1) for line in body.decode().splitlines() if "=" in line)
    if status != 200 or seen.get("uri") != "/headers":
        complaints.append(f"`/api` was not stripped: status {status}, path {seen.get('uri')}")
    if seen.get("x-postern") != "1":
        complaints.append("`x-postern: 1` was not set")
    if seen.get("x-internal") != "":
        complaints.append("`x-internal` was not removed")
    if headers.get("x-frame-options") != "DENY":
        complaints.append("`x-frame-options: DENY` was not set")
    if "server" in headers:
        complaints.append(f"`server: {headers['server']}` was not removed")

    cases = [({}, 401), ({"X-Api-Key": "k"}, 200)]
    for sent, wanted in cases:
        status, _, _ = get(site.http_port, "/admin/page", headers=sent)
        if status != wanted:
            complaints.append(f"`/admin` with {sent or 'no key'} gave status {status}")
    return complaints


def tls(load, site):
    """The version, cipher and key exchange that every proxy must agree to."""
    found = load.negotiated(site.https_port)
    wanted = f"TLSv1.3 {TLS_CIPHER} {TLS_GROUP}"
    return [] if found == wanted else [f"TLS was `{found}`, not `{wanted}`"]


def access_log(site, requests):
    """A line for each request that the load counted; more is well, the load counts less."""
    if not site.access_log.exists():
        return ["there is no access log"]
    lines = 0
    with open(site.access_log, "rb") as log:
        while block := log.read(1 << 20):
            lines += block.count(b"\n")
    return [] if lines >= requests else [f"{lines} access log lines for {requests} requests"]
