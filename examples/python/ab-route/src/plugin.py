"""Sends a part of the clients to a second upstream, and keeps each client where it is by a cookie."""

from dataclasses import dataclass

from postern_plugin import Request, Response, exchange, random


@dataclass
class Config:
    a: str
    b: str
    # How many of a hundred new clients go to `b`.
    percent: int
    cookie: str


config: Config


def configure(given: dict) -> None:
    global config
    config = Config(**given)
    if not 0 <= config.percent <= 100:
        raise ValueError("percent: not a number from 0 to 100")


def select(request: Request) -> str:
    side = request.cookie(config.cookie)
    if side not in ("a", "b"):
        # A new client, or one that made the cookie up. The response has to tell it.
        side = "b" if random.number() % 100 < config.percent else "a"
        exchange.set_state(side.encode())
    return config.b if side == "b" else config.a


def on_response(response: Response) -> None:
    side = exchange.state().decode()
    if side:
        cookie = f"{config.cookie}={side}; Path=/; Max-Age=86400; SameSite=Lax"
        response.append("set-cookie", cookie)
