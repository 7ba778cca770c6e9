-- withdraw_user: undo one expect_user whose create made no session; the last one removes the user.
-- KEYS[1] users       zset of the project, identifier -> created_at
-- KEYS[2] expected    hash of the project, identifier -> creates in progress
-- KEYS[3] project     hash of the project
-- ARGV[1] project_id  of the request; the project's record must have it
-- ARGV[2] identifier  of the user
-- ARGV[3] created_at  that expect_user returned; a user deleted and registered again since has another one
-- returns 1 if the user was removed, else 0; or an error of ownership.lua
-- A create that crashed never withdraws, so its user stays: the session may exist.
-- include: ownership

local users, expected, identifier = KEYS[1], KEYS[2], ARGV[2]

local error_reply = project_owner_error(KEYS[3], ARGV[1])
if error_reply then return error_reply end

local created_at = redis.call("ZSCORE", users, identifier)
if not created_at or tonumber(created_at) ~= tonumber(ARGV[3]) then return 0 end
local in_progress = tonumber(redis.call("HGET", expected, identifier))
if not in_progress then return 0 end
-- HDEL first: it needs no memory, and Redis checks its memory limit only at a script's first write.
redis.call("HDEL", expected, identifier)
if in_progress > 1 then
  redis.call("HSET", expected, identifier, string.format("%.0f", in_progress - 1))
  return 0
end
return redis.call("ZREM", users, identifier)
