"""Between what the gateway calls and the module `plugin`. `postern plugin build` writes the module
that exports the classes of the phases in plugin.toml."""

import json

from componentize_py_types import Err
from wit_world.imports import types

from . import Abort, NeedBody, Request, Respond, Response, Setup, log

_plugin = None
_setup = Setup()


def start(plugin) -> None:
    global _plugin
    _plugin = plugin


def _insist(call, *arguments):
    """A fault ends the call: what the policy was to do is not done, and whether the exchange goes on
    without it is for the operator to decide."""
    try:
        return call(*arguments)
    except Exception as error:
        log.error(f"{type(error).__name__}: {error}")
        raise


def _request(view=()):
    return Request(_setup.request_view, view)


def _response(view=()):
    return Response(_setup.response_view, view)


def _act(call, *arguments):
    decided = _insist(call, *arguments)
    match decided:
        case None:
            return types.Action_Next()
        case Respond():
            headers = [types.Field(name, value) for name, value in decided.headers]
            body = decided.body
            if isinstance(body, str):
                body = body.encode()
                if not any(name.lower() == "content-type" for name, _ in decided.headers):
                    headers.append(types.Field("content-type", "text/plain; charset=utf-8"))
            return types.Action_Respond(types.LocalResponse(decided.status, headers, body))
        case NeedBody():
            overflow = types.Overflow.TRUNCATE if decided.truncate else types.Overflow.REJECT
            return types.Action_NeedBody(types.BodyRequest(decided.limit, overflow))
        case Abort():
            return types.Action_Abort()
        case _:
            raise TypeError(f"a phase answered {decided!r}, which is no action")


def _piece(call, chunk, last):
    decided = _insist(call, chunk, last)
    match decided:
        case None:
            return types.ChunkAction_Pass()
        case bytes():
            return types.ChunkAction_Replace(decided)
        case Abort():
            return types.ChunkAction_Abort()
        case _:
            raise TypeError(f"a phase answered {decided!r}, which is no piece of a body")


class Lifecycle:
    def configure(self, config: str):
        # The module exists only in what `componentize-py` makes.
        from wit_world.exports import lifecycle

        global _setup
        try:
            make = getattr(_plugin, "configure", None)
            _setup = (make(json.loads(config)) if make else None) or Setup()
        except Exception as error:
            raise Err(str(error) or type(error).__name__) from None
        mode = lambda chunks: lifecycle.BodyMode.CHUNKS if chunks else lifecycle.BodyMode.NONE
        return lifecycle.Spec(
            _setup.request_view,
            _setup.response_view,
            mode(_setup.request_chunks),
            mode(_setup.response_chunks),
            _setup.tick_ms,
        )


class RoutePhase:
    def select(self, view):
        return _insist(_plugin.select, _request(view))


class RequestPhase:
    def on_request(self, view):
        return _act(_plugin.on_request, _request(view))


class RequestBodyPhase:
    def on_request_body(self, length, truncated):
        return _act(_plugin.on_request_body, _request(), length, truncated)


class RequestStream:
    def on_request_chunk(self, chunk, last):
        return _piece(_plugin.on_request_chunk, chunk, last)


class ResponsePhase:
    def on_response(self, view):
        return _act(_plugin.on_response, _response(view))


class ResponseBodyPhase:
    def on_response_body(self, length, truncated):
        return _act(_plugin.on_response_body, _response(), length, truncated)


class ResponseStream:
    def on_response_chunk(self, chunk, last):
        return _piece(_plugin.on_response_chunk, chunk, last)


class LogPhase:
    def on_log(self, summary):
        _insist(_plugin.on_log, summary)


class Background:
    def on_tick(self):
        _insist(_plugin.on_tick)


class ChallengePhase:
    def key_authorization(self, host, token):
        return _insist(_plugin.key_authorization, host, token)
