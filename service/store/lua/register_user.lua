-- register_user: make a user known; one that is known stays as it is.
-- KEYS[1] users       zset of the project, identifier -> created_at
-- ARGV[1] identifier  of the user
-- returns created_at in microseconds

local users, identifier = KEYS[1], ARGV[1]

local known = redis.call("ZSCORE", users, identifier)
if known then return known end
local time = redis.call("TIME")
local newest = redis.call("ZREVRANGE", users, 0, 0, "WITHSCORES")
-- Always later than every other user: no ties, whatever the clock does.
local created_at = string.format("%.0f", math.max(time[1] * 1000000 + time[2], (tonumber(newest[2]) or 0) + 1))
redis.call("ZADD", users, created_at, identifier)
return created_at
