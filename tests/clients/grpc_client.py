"""A gRPC client that is not ours: GATEWAY-PORT CA-FILE HOST."""

import queue
import sys

import grpc


def main():
    port, ca_file, host = sys.argv[1:]
    with open(ca_file, "rb") as file:
        credentials = grpc.ssl_channel_credentials(file.read())
    options = (
        ("grpc.ssl_target_name_override", host),
        ("grpc.default_authority", host),
        ("grpc.enable_http_proxy", 0),
    )
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
        unary(channel)
        failure(channel)
        stream(channel)


def unary(channel):
    say = channel.unary_unary("/postern.Echo/Say")
    answer, call = say.with_call(b"world", timeout=20)
    assert answer == b"hello world", answer
    assert ("x-initial", "seen") in metadata(call.initial_metadata())
    assert ("x-trailing", "seen") in metadata(call.trailing_metadata())
    large = b"x" * 1_000_000
    assert say(large, timeout=20) == b"hello " + large
    print("unary: ok")


def failure(channel):
    try:
        channel.unary_unary("/postern.Echo/Say")(b"fail", timeout=20)
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error
        assert error.details() == "as asked", error
        assert ("x-trailing", "seen") in metadata(error.trailing_metadata())
        print("failure: ok")
    else:
        raise AssertionError("it did not fail")


def stream(channel):
    # Each message is sent after the answer to the one before: nothing may wait for an end.
    messages = queue.SimpleQueue()
    call = channel.stream_stream("/postern.Echo/Chat")(iter(messages.get, None), timeout=20)
    for number in range(100):
        messages.put(b"message %d" % number)
        assert next(call) == b"MESSAGE %d" % number
    messages.put(None)
    assert list(call) == []
    assert call.code() == grpc.StatusCode.OK
    assert ("x-trailing", "seen") in metadata(call.trailing_metadata())
    print("stream: ok")


def metadata(pairs):
    return [tuple(pair) for pair in pairs]


main()
