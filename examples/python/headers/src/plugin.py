"""Sets and removes header fields of requests and responses, as the configuration says."""

from postern_plugin import Request, Response

# Fields that every request gets.
set_fields: dict[str, str] = {}
# Fields that no response keeps.
remove_fields: list[str] = []


def configure(config: dict) -> None:
    for key in config:
        if key not in ("set", "remove"):
            raise ValueError(f"unknown key {key}; known are set and remove")
    set_fields.update(config.get("set", {}))
    remove_fields.extend(config.get("remove", []))


def on_request(request: Request) -> None:
    for name, value in set_fields.items():
        request.set(name, value)


def on_response(response: Response) -> None:
    for name in remove_fields:
        response.remove(name)
