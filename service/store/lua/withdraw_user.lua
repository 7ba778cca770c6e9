-- withdraw_user: take back one expect_user whose create made no session; the last one removes the user.
-- KEYS[1] users       zset of the project, identifier -> created_at
-- KEYS[2] expected    hash of the project, identifier -> undecided creates
-- ARGV[1] identifier  of the user
-- ARGV[2] created_at  that expect_user returned: a user who was deleted and registered again meanwhile is another one
-- returns 1 where the user was removed, else 0
-- A create that crashed never takes its expect_user back, so its user stays: its session may exist.

local users, expected, identifier = KEYS[1], KEYS[2], ARGV[1]

local created_at = redis.call("ZSCORE", users, identifier)
if not created_at or tonumber(created_at) ~= tonumber(ARGV[2]) then return 0 end
local undecided = tonumber(redis.call("HGET", expected, identifier))
if not undecided then return 0 end
-- First what needs no memory: Redis may be out of it, and refuses a script nothing after a first write.
redis.call("HDEL", expected, identifier)
if undecided > 1 then
  redis.call("HSET", expected, identifier, string.format("%.0f", undecided - 1))
  return 0
end
return redis.call("ZREM", users, identifier)
