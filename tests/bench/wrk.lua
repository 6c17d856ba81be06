-- The request that wrk sends, and its result as one line of JSON.
--
-- The request is the same every time, so it is only described here: with a `request` function wrk
-- would build it anew each time and the load would cost more than the proxies.

wrk.method = "GET"
wrk.headers["Connection"] = "keep-alive"

for line in io.lines(os.getenv("BENCH_HEADERS")) do
  local name, value = line:match("^([^:]+): (.+)$")
  wrk.headers[name] = value
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    'BENCH {"requests": %d, "seconds": %f, "p50_us": %f, "p99_us": %f, "bad_status": %d, '
      .. '"connect": %d, "read": %d, "write": %d, "timeout": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect, errors.read, errors.write, errors.timeout))
end
