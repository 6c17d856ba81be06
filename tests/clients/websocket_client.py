"""A WebSocket client that is not ours: GATEWAY-PORT CA-FILE HOST."""

import socket
import ssl
import sys

from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect


def main():
    port, ca_file, host = sys.argv[1:]
    tls = ssl.create_default_context(cafile=ca_file)

    def open_at(path):
        return connect(
            f"wss://{host}{path}",
            sock=socket.create_connection(("127.0.0.1", int(port))),
            ssl=tls,
            server_hostname=host,
            subprotocols=["chat"],
            max_size=None,
            open_timeout=20,
        )

    with open_at("/chat/../chat/room?id=1") as connection:
        assert connection.subprotocol == "chat", connection.subprotocol
        assert connection.recv(timeout=20) == "/chat/room?id=1"
        for message in ["text", "ümläut", b"\x00\xff", "x" * 1_000_000, ""]:
            connection.send(message)
            assert connection.recv(timeout=20) == message
        assert connection.ping().wait(timeout=20)
        connection.send("last")
        assert connection.recv(timeout=20) == "last"
    assert connection.close_code == 1000, connection.close_code
    print("messages: ok")

    try:
        open_at("/nowhere")
    except InvalidStatus as refused:
        assert refused.response.status_code == 404, refused
        print("refusal: ok")
    else:
        raise AssertionError("it was not refused")


main()
