-- import_users: register users with the created_at that they had in another store. A registered user keeps its created_at, and
-- cannot be withdrawn any more.
-- KEYS[1] users       zset of the project, identifier -> created_at
-- KEYS[2] expected    hash of the project, identifier -> creates in progress
-- KEYS[3] project     hash of the project
-- ARGV[1] project_id  of the import; the project's record must have it
-- ARGV[2] max_users   maximum for the project, 0 for no limit
-- ARGV[3] imported    pairs of identifier and created_at in microseconds; the caller limits their number
-- returns {"ok", how many were not registered} | {"too_many_users", how many were registered before} | an error of ownership.lua
-- include: ownership

local users, expected = KEYS[1], KEYS[2]

local error_reply = project_owner_error(KEYS[3], ARGV[1])
if error_reply then return error_reply end

local added, max_users = 0, tonumber(ARGV[2])
for i = 3, #ARGV, 2 do
  local identifier, created_at = ARGV[i], ARGV[i + 1]
  if not redis.call("ZSCORE", users, identifier) then
    if max_users > 0 and redis.call("ZCARD", users) >= max_users then return { "too_many_users", added } end
    -- There are no ties, or a page of users could end between them.
    if redis.call("ZCOUNT", users, created_at, created_at) > 0 then
      local newest = redis.call("ZREVRANGE", users, 0, 0, "WITHSCORES")
      created_at = string.format("%.0f", tonumber(newest[2]) + 1)
    end
    redis.call("ZADD", users, created_at, identifier)
    added = added + 1
  end
  redis.call("HDEL", expected, identifier)
end
return { "ok", added }
