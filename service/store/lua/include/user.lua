-- Adds a user to the zset of the project's users, unless it exists. Returns its created_at in microseconds.
local function add_user(users, identifier)
  local before = redis.call("ZSCORE", users, identifier)
  if before then return before end
  local time = redis.call("TIME")
  local newest = redis.call("ZREVRANGE", users, 0, 0, "WITHSCORES")
  -- Later than every other user, even if the clock steps back: there are no ties.
  local created_at = string.format("%.0f", math.max(time[1] * 1000000 + time[2], (tonumber(newest[2]) or 0) + 1))
  redis.call("ZADD", users, created_at, identifier)
  return created_at
end
