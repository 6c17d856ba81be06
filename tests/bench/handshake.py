"""Load with one full TLS handshake a request, run by bench.py as a process of its own.

wrk cannot do it: with `Connection: close` it keeps the TLS session of the connection before, and
offers it in the next ClientHello. Here each connection starts without a session, and the ones that
were resumed all the same are counted.

Prints one line of JSON. Usage: handshake.py HOST PORT PATH HEADERS-FILE SECONDS PROCESSES
"""

import json
import multiprocessing
import socket
import ssl
import sys
import time

TIMEOUT_SECONDS = 5


def client(host, port, request, seconds):
    """Connects, asks, reads to the end and closes, again and again until the time is over."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the cost of the client is not what is measured
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    latencies, errors = [], {"bad_status": 0, "resumed": 0, "connection": 0}
    deadline = time.monotonic() + seconds

    while (start := time.perf_counter()) and time.monotonic() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS) as plain:
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with context.wrap_socket(plain, server_hostname=host) as stream:
                    stream.sendall(request)
                    answer = stream.recv(65536)
                    while stream.recv(65536):
                        pass
                    errors["resumed"] += stream.session_reused
        except OSError:
            errors["connection"] += 1
            continue
        errors["bad_status"] += not answer.startswith(b"HTTP/1.1 200 ")
        latencies.append((time.perf_counter() - start) * 1e6)
    return latencies, errors


def main():
    host, port, path, headers_file, seconds, processes = sys.argv[1:]
    with open(headers_file, encoding="ascii") as lines:
        headers = "".join(line.strip() + "\r\n" for line in lines)
    request = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n{headers}Connection: close\r\n\r\n"

    task = (host, int(port), request.encode(), float(seconds))
    start = time.monotonic()
    with multiprocessing.get_context("fork").Pool(int(processes)) as pool:
        results = pool.starmap(client, [task] * int(processes), chunksize=1)
    elapsed = time.monotonic() - start

    latencies = sorted(value for times, _ in results for value in times)
    result = {"requests": len(latencies), "seconds": elapsed, "p50_us": 0.0, "p99_us": 0.0}
    if latencies:
        result["p50_us"] = latencies[len(latencies) // 2]
        result["p99_us"] = latencies[len(latencies) * 99 // 100]
    for kind in results[0][1]:
        result[kind] = sum(errors[kind] for _, errors in results)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
