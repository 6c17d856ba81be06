"""The proxies: the gateway and its peers, each told the same thing in its own words.

Every function here takes a Site, writes the configuration into the site's folder, and returns the
Command that runs it. The rules that keep the comparison fair stand in README.md.
"""

import json
import os
import pwd
import re
import shutil
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path

HUGE = 1_000_000_000
UPSTREAM_IDLE_CONNECTIONS = 256
GATEWAY_CONFIG = "postern.toml"


@dataclass(frozen=True)
class Site:
    """What a proxy is told: where to listen, what to present, whom to forward to."""

    folder: Path
    http_port: int
    https_port: int
    admin_port: int
    upstream_port: int
    certificate: Path
    key: Path
    # The programs that the header policy runs as; None outside `h1-policy`.
    gateway_plugin: Path | None = None
    envoy_filter: Path | None = None
    # The gateway alone: host names with a route each, and an instance of its plugin for each request.
    hosts: int = 0
    fresh_instances: bool = False

    @property
    def access_log(self):
        return self.folder / "access.log"

    def write(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return path


@dataclass(frozen=True)
class Command:
    argv: list
    env: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Peer:
    name: str
    program: Path
    version_arguments: list
    command: object  # (program, Site) -> Command
    has_policy: bool
    # What its Site has that is another's by default, as in Site.
    setting: dict = field(default_factory=dict)
    # Its configuration changes while it is measured.
    is_changing: bool = False

    def variant(self, suffix, is_changing=False, **setting):
        """The same program, set otherwise."""
        name = f"{self.name}, {suffix}"
        return replace(self, name=name, setting=setting, is_changing=is_changing)

    @property
    def is_gateway(self):
        return self.command is postern

    def version(self):
        run = subprocess.run(
            [self.program, *self.version_arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=20,
        )
        found = re.search(r"\d+\.\d+\.\d+\S*", run.stdout)
        return found[0] if found else f"unknown (it ended with {run.returncode})"


def postern_config(site):
    """The gateway's configuration file."""
    policies, plugin = "", ""
    if site.gateway_plugin:
        policies = ', policies = ["headers"]'
        plugin = f"""
[plugins.headers]
source = "{site.gateway_plugin}"
isolation = "{'request' if site.fresh_instances else 'plugin'}"

[plugins.headers.config]
request = [
  {{ when = {{ path-prefix = "/admin", header = "x-api-key", absent = true }}, deny = {{ status = 401, body = "an API key is needed\\n" }} }},
  {{ set = {{ x-postern = "1" }}, remove = ["x-internal"] }},
  {{ when = {{ path-prefix = "/api" }}, rewrite = {{ prefix = "/api", with = "" }} }},
]
response = [
  {{ set = {{ x-frame-options = "DENY" }}, remove = ["server"] }},
]
"""
    return f"""
[runtime]
workers = 1

[access-log]
path = "{site.access_log}"
format = "text"

[admin]
bind = "127.0.0.1:{site.admin_port}"

[listeners.http]
bind = "127.0.0.1:{site.http_port}"

[listeners.https]
bind = "127.0.0.1:{site.https_port}"
tls = {{ min-version = "1.3" }}

[certificates.bench]
cert-file = "{site.certificate}"
key-file = "{site.key}"

[upstreams.bench]
endpoints = ["127.0.0.1:{site.upstream_port}"]
idle-connections = {UPSTREAM_IDLE_CONNECTIONS}
{plugin}
{postern_routes(site, policies)}
"""


def postern_routes(site, policies):
    if not site.hosts:
        return f'[[routes]]\nrules = [ {{ upstream = "bench"{policies} }} ]'
    paths = ["/", "/api", "/api/v2"]
    rules = ", ".join(f'{{ path.prefix = "{path}", upstream = "bench" }}' for path in paths)
    return "\n".join(
        f'[[routes]]\nhosts = ["host-{number}.example"]\nrules = [{rules}]'
        for number in range(1, site.hosts + 1)
    )


def postern(program, site):
    config = site.write(GATEWAY_CONFIG, postern_config(site))
    return Command([program, "run", "--config", config])


def nginx(program, site):
    config = f"""
{_nginx_main(site)}
events {{ worker_connections 4096; }}
http {{
  {_nginx_temporary_folders(site)}
  access_log {site.access_log} combined buffer=64k flush=1s;
  keepalive_requests {HUGE};

  upstream bench {{
    server 127.0.0.1:{site.upstream_port};
    keepalive {UPSTREAM_IDLE_CONNECTIONS};
    keepalive_requests {HUGE};
  }}

  server {{
    listen 127.0.0.1:{site.http_port};
    listen 127.0.0.1:{site.https_port} ssl http2;
    ssl_certificate {site.certificate};
    ssl_certificate_key {site.key};
    ssl_protocols TLSv1.3;

    location / {{
      proxy_pass http://bench;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_set_header X-Real-IP $remote_addr;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Host $http_host;
      # A large body waits in the upstream's socket, as in the other proxies, not in a file.
      proxy_max_temp_file_size 0;
    }}
  }}
}}
"""
    return _nginx_command(program, site, config)


def upstream(program, site, small_body, large_body):
    """nginx as the application: `large_body` at /1m, the request at /headers, else `small_body`."""
    (site.folder / "1m").write_bytes(large_body)
    echoed = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-real-ip"]
    echoed += ["x-postern", "x-internal"]
    echo = "".join(f"{name}=$http_{name.replace('-', '_')}\\n" for name in echoed)
    config = f"""
{_nginx_main(site)}
events {{ worker_connections 4096; }}
http {{
  {_nginx_temporary_folders(site)}
  access_log off;
  keepalive_requests {HUGE};
  keepalive_timeout 1h;
  sendfile on;
  default_type text/plain;

  server {{
    listen 127.0.0.1:{site.http_port};
    location / {{ return 200 "{small_body}"; }}
    location = /headers {{ return 200 "uri=$request_uri\\n{echo}"; }}
    location = /1m {{ root {site.folder}; }}
  }}
}}
"""
    return _nginx_command(program, site, config)


def _nginx_main(site):
    # As root, nginx gives its workers another user, who may not enter the folder.
    user = f"user {pwd.getpwuid(0).pw_name};" if os.geteuid() == 0 else ""
    return f"{user} daemon off; worker_processes 1; pid {site.folder}/nginx.pid;"


def _nginx_temporary_folders(site):
    kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    return " ".join(f"{kind}_temp_path {site.folder}/{kind};" for kind in kinds)


def _nginx_command(program, site, config):
    path = site.write("nginx.conf", config)
    return Command([program, "-e", "stderr", "-c", path])


def haproxy(program, site):
    # HAProxy wants the key beside the certificate, and logs to standard output or to syslog only.
    pair = site.write("pair.pem", site.certificate.read_text() + site.key.read_text())
    config = site.write(
        "haproxy.cfg",
        f"""
global
  nbthread 1
  maxconn 8192
  log stdout format raw local0

defaults
  mode http
  log global
  option httplog
  timeout connect 5s
  timeout client 60s
  timeout server 60s

frontend bench
  bind 127.0.0.1:{site.http_port}
  bind 127.0.0.1:{site.https_port} ssl crt {pair} ssl-min-ver TLSv1.3 alpn h2,http/1.1
  option forwardfor
  http-request set-header X-Real-IP %[src]
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request set-header X-Forwarded-Proto https if {{ ssl_fc }}
  http-request set-header X-Forwarded-Proto http if !{{ ssl_fc }}
  default_backend bench

backend bench
  http-reuse always
  server upstream 127.0.0.1:{site.upstream_port}
""",
    )
    return Command([program, "-db", "-f", config])


def envoy(program, site):
    def listener(name, port, transport_socket=None):
        chain = {"filters": [_envoy_http_filter(site)]}
        if transport_socket:
            chain["transport_socket"] = transport_socket
        return {"name": name, "address": _envoy_address(port), "filter_chains": [chain]}

    tls = {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": _envoy_type("transport_sockets.tls.v3.DownstreamTlsContext"),
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_3"},
                "tls_certificates": [
                    {
                        "certificate_chain": {"filename": str(site.certificate)},
                        "private_key": {"filename": str(site.key)},
                    }
                ],
            },
        },
    }
    endpoint = {"endpoint": {"address": _envoy_address(site.upstream_port)}}
    config = {
        "static_resources": {
            "listeners": [
                listener("http", site.http_port),
                listener("https", site.https_port, tls),
            ],
            "clusters": [
                {
                    "name": "bench",
                    "type": "STATIC",
                    "connect_timeout": "5s",
                    "load_assignment": {
                        "cluster_name": "bench",
                        "endpoints": [{"lb_endpoints": [endpoint]}],
                    },
                }
            ],
        }
    }
    path = site.write("envoy.json", json.dumps(config, indent=1))
    argv = [program, "-c", path, "--concurrency", "1", "--disable-hot-restart", "-l", "warning"]
    return Command(argv)


def _envoy_http_filter(site):
    def header(key, value):
        return {
            "header": {"key": key, "value": value},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }

    def http_filter(name, type_name, **settings):
        return {"name": name, "typed_config": {"@type": _envoy_type(type_name), **settings}}

    router = http_filter(
        "envoy.filters.http.router", "filters.http.router.v3.Router", suppress_envoy_headers=True
    )
    filters = [router]
    if site.envoy_filter:
        virtual_machine = {
            "runtime": "envoy.wasm.runtime.v8",
            "code": {"local": {"filename": str(site.envoy_filter)}},
        }
        policy = http_filter(
            "envoy.filters.http.wasm",
            "filters.http.wasm.v3.Wasm",
            config={"name": "policy", "root_id": "policy", "vm_config": virtual_machine},
        )
        filters = [policy, router]

    access_log = {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": _envoy_type("access_loggers.file.v3.FileAccessLog"),
            "path": str(site.access_log),
        },
    }
    manager = http_filter(
        "envoy.filters.network.http_connection_manager",
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="bench",
        # X-Forwarded-For and X-Forwarded-Proto come with this.
        use_remote_address=True,
        # No other proxy here makes a request id or answers in its own name after the filters.
        generate_request_id=False,
        server_header_transformation="PASS_THROUGH",
        access_log=[access_log],
        http_filters=filters,
        route_config={
            "virtual_hosts": [
                {
                    "name": "bench",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "bench"}}],
                    "request_headers_to_add": [
                        header("X-Real-IP", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"),
                        header("X-Forwarded-Host", "%REQ(:AUTHORITY)%"),
                    ],
                }
            ]
        },
    )
    return manager


def _envoy_address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _envoy_type(name):
    return f"type.googleapis.com/envoy.extensions.{name}"


def caddy(program, site):
    # X-Forwarded-For, -Proto and -Host are Caddy's default.
    proxy = {
        "handler": "reverse_proxy",
        "upstreams": [{"dial": f"127.0.0.1:{site.upstream_port}"}],
        "headers": {"request": {"set": {"X-Real-IP": ["{http.request.remote.host}"]}}},
        "transport": {
            "protocol": "http",
            "keep_alive": {
                "max_idle_conns": UPSTREAM_IDLE_CONNECTIONS,
                "max_idle_conns_per_host": UPSTREAM_IDLE_CONNECTIONS,
            },
        },
    }

    def server(port, **more):
        return {
            "listen": [f"127.0.0.1:{port}"],
            "routes": [{"handle": [proxy]}],
            "automatic_https": {"disable": True},
            "protocols": ["h1", "h2"],
            "logs": {"default_logger_name": "bench"},
            **more,
        }

    tls = {"protocol_min": "tls1.3", "alpn": ["h2", "http/1.1"]}
    pair = {"certificate": str(site.certificate), "key": str(site.key)}
    config = {
        "admin": {"disabled": True, "config": {"persist": False}},
        "logging": {
            "logs": {
                "default": {"level": "WARN", "exclude": ["http.log.access.bench"]},
                "access": {
                    "include": ["http.log.access.bench"],
                    "writer": {"output": "file", "filename": str(site.access_log), "roll": False},
                    "encoder": {"format": "json"},
                },
            }
        },
        "apps": {
            "http": {
                "servers": {
                    "http": server(site.http_port),
                    "https": server(site.https_port, tls_connection_policies=[tls]),
                }
            },
            "tls": {"certificates": {"load_files": [pair]}},
        },
    }
    path = site.write("caddy.json", json.dumps(config, indent=1))
    env = {
        "GOMAXPROCS": "1",
        "HOME": str(site.folder),
        "XDG_CONFIG_HOME": str(site.folder),
        "XDG_DATA_HOME": str(site.folder),
    }
    return Command([program, "run", "--config", path], env)


def find_program(name, tools):
    """The file of a program: from setup.sh's folder, else from the search path; None if absent."""
    path = os.pathsep.join([str(tools), os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    found = shutil.which(name, path=path)
    return Path(found).resolve() if found else None


def all_peers(tools, gateway):
    """Every peer whose program is there, in the order of the report; and the names of the rest."""
    wanted = [
        ("postern", gateway, ["version"], postern, True),
        ("nginx", find_program("nginx", tools), ["-v"], nginx, False),
        ("haproxy", find_program("haproxy", tools), ["-v"], haproxy, False),
        ("envoy", find_program("envoy", tools), ["--version"], envoy, True),
        ("caddy", find_program("caddy", tools), ["version"], caddy, False),
    ]
    present = [Peer(*each) for each in wanted if each[1]]
    return present, [each[0] for each in wanted if not each[1]]
