-- register_user: register the user of an existing session. A registered user keeps its created_at and cannot be withdrawn any more.
-- KEYS[1] users       zset of the project, identifier -> created_at
-- KEYS[2] expected    hash of the project, identifier -> creates in progress
-- KEYS[3] project     hash of the project
-- ARGV[1] project_id  of the request; the project's record must have it
-- ARGV[2] identifier  of the user
-- returns created_at in microseconds, or an error of ownership.lua
-- include: ownership
-- include: user

local error_reply = project_owner_error(KEYS[3], ARGV[1])
if error_reply then return error_reply end
-- add_user first: Redis checks its memory limit only at a script's first write, so a refusal must come before any other write.
local created_at = add_user(KEYS[1], ARGV[2])
redis.call("HDEL", KEYS[2], ARGV[2])
return created_at
