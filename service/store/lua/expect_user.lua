-- expect_user: register a user before their session is created, so that the create can withdraw them if it makes no session.
-- KEYS[1] users       zset of the project, identifier -> created_at
-- KEYS[2] expected    hash of the project, identifier -> undecided creates
-- KEYS[3] project     hash of the project
-- ARGV[1] project_id  of the request, as the record should have it
-- ARGV[2] identifier  of the user
-- ARGV[3] max_users   that the project may have, 0 for any number
-- returns created_at in microseconds, "" where the user is registered for good, or "full" where the project has all it may have;
--         or an error of ownership.lua
-- include: ownership
-- include: user

local users, expected, identifier = KEYS[1], KEYS[2], ARGV[2]

local refusal = other_project(KEYS[3], ARGV[1])
if refusal then return refusal end
if redis.call("ZSCORE", users, identifier) and redis.call("HEXISTS", expected, identifier) == 0 then return "" end
local max_users = tonumber(ARGV[3])
if max_users > 0 and not redis.call("ZSCORE", users, identifier) and redis.call("ZCARD", users) >= max_users then return "full" end
local created_at = add_user(users, identifier)
redis.call("HINCRBY", expected, identifier, 1)
return created_at
