"""Lets a request pass if an authentication service says that its bearer token is good."""

from dataclasses import dataclass

from postern_plugin import Request, Respond, Setup
from postern_plugin.callout import send


@dataclass
class Config:
    # The upstream that is asked, which has to be granted to the plugin.
    upstream: str
    # Where: it answers 200 with the field x-user for a good token, and 401 for another.
    path: str


config: Config


def configure(given: dict) -> Setup:
    global config
    config = Config(**given)
    return Setup(request_view=["authorization"])


def on_request(request: Request) -> Respond | None:
    # Whatever the client says about itself must not reach the application.
    request.remove("x-user")
    scheme, _, token = (request.get("authorization") or "").partition(" ")
    if scheme != "Bearer":
        return denied()
    # A service that cannot be asked is a fault: the operator says what happens then.
    answer = send(config.upstream, config.path, headers={"x-token": token}, timeout_ms=1000)
    user = answer.headers.get("x-user")
    if answer.status == 200 and user:
        request.set("x-user", user)
        request.remove("authorization")
        return None
    if answer.status == 401:
        return denied()
    raise RuntimeError(f"the authentication service answered {answer.status}")


def denied() -> Respond:
    return Respond(401, "a valid token is needed\n", [("www-authenticate", "Bearer")])
