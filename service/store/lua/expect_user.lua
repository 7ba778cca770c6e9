-- expect_user: register a user before their session is created, so that the create can withdraw them if it makes no session.
-- KEYS[1] users       zset of the project, identifier -> created_at
-- KEYS[2] expected    hash of the project, identifier -> undecided creates
-- ARGV[1] identifier  of the user
-- ARGV[2] max_users   that the project may have, 0 for any number
-- returns created_at in microseconds, "" where the user is registered for good, or "full" where the project has all it may have
-- include: user

local users, expected, identifier = KEYS[1], KEYS[2], ARGV[1]

if redis.call("ZSCORE", users, identifier) and redis.call("HEXISTS", expected, identifier) == 0 then return "" end
local max_users = tonumber(ARGV[2])
if max_users > 0 and not redis.call("ZSCORE", users, identifier) and redis.call("ZCARD", users) >= max_users then return "full" end
local created_at = add_user(users, identifier)
redis.call("HINCRBY", expected, identifier, 1)
return created_at
