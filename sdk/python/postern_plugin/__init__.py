"""Policies for the Postern gateway, in Python.

A policy is the module `plugin` (src/plugin.py). It defines the functions below whose phases
plugin.toml lists:

    configure(config: dict) -> Setup | None      once in each instance; what it raises refuses the
                                                 configuration, and the operator sees the text
    select(request) -> str | None                "route"
    on_request(request) -> Action | None         "request"
    on_request_body(request, length, truncated)  "request-body", after `need_body`
    on_request_chunk(chunk, last)                "request-stream"; None passes it, bytes replace it
    on_response(response) -> Action | None       "response"
    on_response_body(response, length, truncated)
    on_response_chunk(chunk, last)
    on_log(summary)                              "log"
    on_tick()                                    "background"
    key_authorization(host, token) -> str | None "challenge"

What a phase raises ends the call: it is logged, and the exchange gets what the operator chose for a
plugin that fails, 503 by default.

What wants an entry in `uses` of plugin.toml stands in modules of its own: body, callout, crypto,
metrics, secrets, shared. They are the interfaces of wit/host.wit as `wit_world.imports` has them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from componentize_py_types import Err
from wit_world.imports import clock as _clock
from wit_world.imports import exchange as _exchange
from wit_world.imports import log as _log
from wit_world.imports import random as _random
from wit_world.imports import request as _request
from wit_world.imports import response as _response


class EditError(Exception):
    """An edit that the gateway refused. `reason` is the word of `edit-error` in wit/types.wit."""

    def __init__(self, reason: str):
        super().__init__(f"an edit was refused: {reason}")
        self.reason = reason


def _edit(call, *arguments) -> None:
    try:
        call(*arguments)
    except Err as error:
        raise EditError(error.value.name.lower().replace("_", "-")) from None


@dataclass
class Setup:
    """What the plugin wants to be given. The names are those of `request-view` and `response-view`
    in wit/phases.wit: their values come with the call, which is faster than asking for them."""

    request_view: list[str] = field(default_factory=list)
    response_view: list[str] = field(default_factory=list)
    request_chunks: bool = False
    response_chunks: bool = False
    tick_ms: int = 0


@dataclass
class Respond:
    """Answers now. Text is sent as UTF-8."""

    status: int
    body: str | bytes = b""
    headers: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class NeedBody:
    """Holds the message and collects at most `limit` bytes of its body."""

    limit: int
    truncate: bool = False


@dataclass
class Abort:
    """Ends the connection or stream without an answer."""


Action = Respond | NeedBody | Abort


class _Message:
    def __init__(self, wire, names, values):
        self._wire = wire
        self._given = dict(zip(names, values))

    def _forget(self, name: str) -> None:
        self._given.pop(name.lower(), None)

    def get(self, name: str) -> str | None:
        """The value of a field; None if it is absent or not UTF-8. Several are joined with ", "."""
        if name in self._given:
            return self._given[name]
        return self._wire.get(name)

    def get_all(self, name: str) -> list[str]:
        return self._wire.get_all(name)

    def get_bytes(self, name: str) -> list[bytes]:
        return self._wire.get_bytes(name)

    def names(self) -> list[str]:
        return self._wire.names()

    def set(self, name: str, value: str) -> None:
        """Replaces every value of the field by this one."""
        self._forget(name)
        _edit(self._wire.set, name, value)

    def append(self, name: str, value: str) -> None:
        """Adds a value, keeping those that are there."""
        self._forget(name)
        _edit(self._wire.append, name, value)

    def remove(self, name: str) -> None:
        """Removes every value of the field. Removing an absent field is no error."""
        self._forget(name)
        _edit(self._wire.remove, name)


class Request(_Message):
    """The request of the current exchange."""

    def __init__(self, names=(), values=()):
        super().__init__(_request, names, values)

    def _known(self, name: str, ask) -> str:
        value = self._given.get(name)
        return ask() if value is None else value

    @property
    def method(self) -> str:
        return self._known(":method", _request.method)

    @method.setter
    def method(self, method: str) -> None:
        self._forget(":method")
        _edit(_request.set_method, method)

    @property
    def path(self) -> str:
        """Path and query."""
        return self._known(":path", _request.path)

    @path.setter
    def path(self, path: str) -> None:
        self._forget(":path")
        _edit(_request.set_path, path)

    @property
    def authority(self) -> str:
        """Host and, if the client gave one, port."""
        return self._known(":authority", _request.authority)

    @authority.setter
    def authority(self, authority: str) -> None:
        self._forget(":authority")
        self._forget("host")
        _edit(_request.set_authority, authority)

    @property
    def scheme(self) -> str:
        return self._known(":scheme", _request.scheme)

    def cookie(self, name: str) -> str | None:
        """The value of the first cookie of this name."""
        for line in self.get_all("cookie"):
            for pair in line.split(";"):
                key, equals, value = pair.strip().partition("=")
                if key == name and equals:
                    return value
        return None

    def set_upstream(self, name: str) -> None:
        """Sends the request to this upstream, by its configured name."""
        _edit(_request.set_upstream, name)


class Response(_Message):
    """The response of the current exchange."""

    def __init__(self, names=(), values=()):
        super().__init__(_response, names, values)

    @property
    def request(self) -> Request:
        """The request that this answers, to be read."""
        return Request()

    @property
    def status(self) -> int:
        value = self._given.get(":status")
        return _response.status() if value is None else int(value)

    @status.setter
    def status(self, status: int) -> None:
        self._forget(":status")
        _edit(_response.set_status, status)


class log:
    """The gateway's log."""

    @staticmethod
    def _write(level, message: str, fields: dict[str, object]) -> None:
        if _log.enabled(level):
            _log.write(level, message, [(name, str(value)) for name, value in fields.items()])

    @staticmethod
    def debug(message: str, **fields: object) -> None:
        log._write(_log.Level.DEBUG, message, fields)

    @staticmethod
    def info(message: str, **fields: object) -> None:
        log._write(_log.Level.INFO, message, fields)

    @staticmethod
    def warn(message: str, **fields: object) -> None:
        log._write(_log.Level.WARN, message, fields)

    @staticmethod
    def error(message: str, **fields: object) -> None:
        log._write(_log.Level.ERROR, message, fields)


class exchange:
    """What is known of the current exchange beside its messages."""

    id = staticmethod(_exchange.id)
    traceparent = staticmethod(_exchange.traceparent)
    attribute = staticmethod(_exchange.attribute)
    state = staticmethod(_exchange.state)
    var = staticmethod(_exchange.var)

    @staticmethod
    def set_state(state: bytes) -> None:
        """Keeps bytes, at most 4 KiB, for the later phases of this plugin."""
        _edit(_exchange.set_state, state)

    @staticmethod
    def set_var(name: str, value: str) -> None:
        """A value for later plugins and the access log."""
        _edit(_exchange.set_var, name, value)


class clock:
    """Real time. That of Python's `time` is made up here."""

    now_ms = staticmethod(_clock.now_ms)
    monotonic_ns = staticmethod(_clock.monotonic_ns)
    sleep_ms = staticmethod(_clock.sleep_ms)


class random:
    """Fit for secrets. Python's `random` and `secrets` are not, here."""

    bytes = staticmethod(_random.bytes)
    number = staticmethod(_random.number)
