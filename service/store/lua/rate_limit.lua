-- rate_limit: count one request of an API key against its rate, by GCRA (the generic cell rate algorithm).
-- KEYS[1] rate      time at which the full burst is available again, in microseconds; expires then
-- ARGV[1] interval  microseconds per request
-- ARGV[2] burst     requests that may come at the same time
-- returns {requests remaining, microseconds until the full burst is available, microseconds to wait (0: the request is admitted)}
-- Each request moves the stored time one interval ahead. A request that would move it further than the burst allows is refused
-- and moves nothing. A stored time beyond the burst means that the clock stepped back or the rate was changed: the key then counts
-- as exhausted now. That is stored even if the request is refused, so that waiting helps.

local rate, interval, burst = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])

local time = redis.call("TIME")
local now = time[1] * 1000000 + time[2]

-- PX counts by a clock that may step back; the key then lives longer, which is harmless.
local function store(full_at)
  -- DEL first: it needs no memory, and Redis checks its memory limit only at a script's first write. So a full store counts too.
  redis.call("DEL", rate)
  redis.call("SET", rate, string.format("%.0f", full_at), "PX", string.format("%.0f", math.ceil((full_at - now) / 1000)))
end

local stored, latest = tonumber(redis.call("GET", rate)) or now, now + burst * interval
local full_at = math.min(math.max(stored, now), latest)
local wait = full_at + interval - burst * interval - now
if wait > 0 then
  if stored > latest then store(full_at) end
  return { 0, full_at - now, wait }
end
full_at = full_at + interval
store(full_at)
return { math.floor(burst - (full_at - now) / interval), full_at - now, 0 }
