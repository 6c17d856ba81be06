-- The request that wrk sends, and its result as one line of JSON.
--
-- The request is the same every time, so it is only described here: with a `request` function wrk
-- would build it anew each time and the load would cost more than the proxies. Where host names are
-- asked for in turn, every request is built before the first is sent.

wrk.method = "GET"
wrk.headers["Connection"] = "keep-alive"

for line in io.lines(os.getenv("BENCH_HEADERS")) do
  local name, value = line:match("^([^:]+): (.+)$")
  wrk.headers[name] = value
end

local hosts = tonumber(os.getenv("BENCH_HOSTS") or "0")
if hosts > 0 then
  local requests, turn = {}, 0

  function init(args)
    for number = 1, hosts do
      wrk.headers["Host"] = string.format("host-%d.example", number)
      requests[number] = wrk.format()
    end
  end

  function request()
    turn = turn % hosts + 1
    return requests[turn]
  end
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    'BENCH {"requests": %d, "seconds": %f, "p50_us": %f, "p99_us": %f, "bad_status": %d, '
      .. '"connect": %d, "read": %d, "write": %d, "timeout": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect, errors.read, errors.write, errors.timeout))
end
