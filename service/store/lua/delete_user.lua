-- delete_user: take a user out of the project's users.
-- KEYS[1] users       zset of the project, identifier -> created_at
-- KEYS[2] expected    hash of the project, identifier -> undecided creates
-- KEYS[3] project     hash of the project
-- ARGV[1] project_id  of the request, as the record should have it
-- ARGV[2] identifier  of the user
-- returns 1 where the user was registered, else 0; or an error of ownership.lua
-- include: ownership

local refusal = other_project(KEYS[3], ARGV[1])
if refusal then return refusal end
redis.call("HDEL", KEYS[2], ARGV[2])
return redis.call("ZREM", KEYS[1], ARGV[2])
