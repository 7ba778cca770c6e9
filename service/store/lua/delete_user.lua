-- delete_user: remove a user from the project's users.
-- KEYS[1] users       zset of the project, identifier -> created_at
-- KEYS[2] expected    hash of the project, identifier -> creates in progress
-- KEYS[3] project     hash of the project
-- ARGV[1] project_id  of the request; the project's record must have it
-- ARGV[2] identifier  of the user
-- returns 1 if the user was registered, else 0; or an error of ownership.lua
-- include: ownership

local error_reply = project_owner_error(KEYS[3], ARGV[1])
if error_reply then return error_reply end
redis.call("HDEL", KEYS[2], ARGV[2])
return redis.call("ZREM", KEYS[1], ARGV[2])
