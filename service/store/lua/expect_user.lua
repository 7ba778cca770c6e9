-- expect_user: register a user before the session is created; if no session is created, withdraw_user takes it back.
-- KEYS[1] users       zset of the project, identifier -> created_at
-- KEYS[2] expected    hash of the project, identifier -> creates in progress
-- KEYS[3] project     hash of the project
-- ARGV[1] project_id  of the request; the project's record must have it
-- ARGV[2] identifier  of the user
-- ARGV[3] max_users   maximum for the project, 0 for no limit
-- returns {"expected", created_at in microseconds} | {"registered"} (nothing to withdraw) | {"too_many_users"}
--       | an error of ownership.lua
-- include: ownership
-- include: user

local users, expected, identifier = KEYS[1], KEYS[2], ARGV[2]

local error_reply = project_owner_error(KEYS[3], ARGV[1])
if error_reply then return error_reply end
if redis.call("ZSCORE", users, identifier) and redis.call("HEXISTS", expected, identifier) == 0 then return { "registered" } end
local max_users = tonumber(ARGV[3])
if max_users > 0 and not redis.call("ZSCORE", users, identifier) and redis.call("ZCARD", users) >= max_users then
  return { "too_many_users" }
end
local created_at = add_user(users, identifier)
redis.call("HINCRBY", expected, identifier, 1)
return { "expected", created_at }
