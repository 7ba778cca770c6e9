-- take_rate: count one request of an API key against its rate (GCRA, the generic cell rate algorithm): each request moves the
-- time at which the whole burst is there again by one interval; a request that would move it further than the burst reaches
-- is refused, and moves nothing. Where the stored time is further ahead than the burst reaches (the clock has stepped back, or the
-- rate was changed), the key counts as used up now: that is stored even where the request is refused, so that time helps it.
-- KEYS[1] rate      when the whole burst is there again, in microseconds; gone once it is
-- ARGV[1] interval  microseconds a request
-- ARGV[2] burst     requests at once
-- returns {requests left, microseconds until the whole burst is there again, microseconds to wait (0: this request may go on)}

local rate, interval, burst = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])

local time = redis.call("TIME")
local now = time[1] * 1000000 + time[2]

-- The expiry is by a clock that may step back, too; then the key stays longer, which changes nothing.
local function store(whole)
  -- First a write that needs no memory: a full store counts, too, and Redis refuses a script nothing after a first write.
  redis.call("DEL", rate)
  redis.call("SET", rate, string.format("%.0f", whole), "PX", string.format("%.0f", math.ceil((whole - now) / 1000)))
end

local stored, latest = tonumber(redis.call("GET", rate)) or now, now + burst * interval
local whole = math.min(math.max(stored, now), latest)
local wait = whole + interval - burst * interval - now
if wait > 0 then
  if stored > latest then store(whole) end
  return { 0, whole - now, wait }
end
whole = whole + interval
store(whole)
return { math.floor(burst - (whole - now) / interval), whole - now, 0 }
