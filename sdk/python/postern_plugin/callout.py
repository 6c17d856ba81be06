"""Requests to upstreams of the gateway. Wants `uses = ["callout"]` in plugin.toml, and each upstream
has to be granted (`grants.upstreams`)."""

from __future__ import annotations

from componentize_py_types import Err
from wit_world.imports import callout as _callout
from wit_world.imports import types as _types


class CallError(Exception):
    """Nothing came back. `reason` is the word of `call-error` in wit/host.wit."""

    def __init__(self, reason: str):
        super().__init__(f"a callout failed: {reason}")
        self.reason = reason


class Answer:
    def __init__(self, reply):
        self.status: int = reply.status
        self.headers: dict[str, str] = {}
        for field in reply.headers:
            known = self.headers.get(field.name)
            self.headers[field.name] = field.value if known is None else f"{known}, {field.value}"
        self.body: bytes = reply.body


def send(
    upstream: str,
    path: str,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    body: bytes = b"",
    timeout_ms: int = 0,
    max_response_bytes: int = 0,
) -> Answer:
    """Waits for the answer, while the gateway goes on. Raises a CallError."""
    fields = [_types.Field(name, value) for name, value in (headers or {}).items()]
    call = _callout.Call(
        upstream, method, path, fields, body, timeout_ms, max_response_bytes
    )
    try:
        return Answer(_callout.send(call))
    except Err as error:
        raise CallError(error.value.name.lower().replace("_", "-")) from None
