"""A gRPC server that is not ours: a unary method and a stream in both directions.

Prints its port and serves until its standard input ends. Messages are plain bytes, so that no
generated code is needed.
"""

import sys
from concurrent import futures

import grpc


def say(request, context):
    context.send_initial_metadata((("x-initial", "seen"),))
    context.set_trailing_metadata((("x-trailing", "seen"),))
    if request == b"fail":
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as asked")
    return b"hello " + request


def chat(requests, context):
    context.set_trailing_metadata((("x-trailing", "seen"),))
    for request in requests:
        yield request.upper()


def main():
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    handlers = {
        "Say": grpc.unary_unary_rpc_method_handler(say),
        "Chat": grpc.stream_stream_rpc_method_handler(chat),
    }
    handler = grpc.method_handlers_generic_handler("postern.Echo", handlers)
    server.add_generic_rpc_handlers((handler,))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    sys.stdin.read()
    server.stop(None)


main()
