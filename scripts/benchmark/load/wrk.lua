-- Load for wrk: sends the requests of a file in turn, over and over, and prints one line of JSON at the end.
-- The file has whole HTTP requests, each after a line with its length. Each thread starts at another request.

local threads = 0
function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end

local requests, position = {}, 0
function init(args)
  local file = assert(io.open(args[1], "rb"))
  while true do
    local length = file:read("*l")
    if not length then break end
    requests[#requests + 1] = file:read(tonumber(length))
  end
  file:close()
  position = number * 37 % #requests
end

function request()
  position = position % #requests + 1
  return requests[position]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests":%d,"duration":%d,"failed":%d,"refused":%d,"p50":%d,"p99":%d}\n',
    summary.requests, summary.duration, errors.connect + errors.read + errors.write + errors.timeout, errors.status,
    latency:percentile(50), latency:percentile(99)))
end
