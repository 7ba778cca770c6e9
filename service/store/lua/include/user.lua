-- Adds a user to the zset of the project's users and returns its created_at in microseconds; one that is there stays as it is.
local function add_user(users, identifier)
  local before = redis.call("ZSCORE", users, identifier)
  if before then return before end
  local time = redis.call("TIME")
  local newest = redis.call("ZREVRANGE", users, 0, 0, "WITHSCORES")
  -- Always later than every other user: no ties, whatever the clock does.
  local created_at = string.format("%.0f", math.max(time[1] * 1000000 + time[2], (tonumber(newest[2]) or 0) + 1))
  redis.call("ZADD", users, created_at, identifier)
  return created_at
end
