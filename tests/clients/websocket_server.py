"""A WebSocket server that is not ours: echoes messages, and says which path was asked for first.

Prints its port and serves until its standard input ends.
"""

import sys
import threading

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve


def echo(connection):
    try:
        connection.send(connection.request.path)
        for message in connection:
            connection.send(message)
    except ConnectionClosed:
        pass


def main():
    with serve(echo, "127.0.0.1", 0, subprotocols=["chat"], max_size=None) as server:
        print(server.socket.getsockname()[1], flush=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        sys.stdin.read()
        server.shutdown()


main()
