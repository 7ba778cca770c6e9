-- register_user: register the user of a session that exists; one that is registered stays as it is, and can no longer be withdrawn.
-- KEYS[1] users       zset of the project, identifier -> created_at
-- KEYS[2] expected    hash of the project, identifier -> undecided creates
-- KEYS[3] project     hash of the project
-- ARGV[1] project_id  of the request, as the record should have it
-- ARGV[2] identifier  of the user
-- returns created_at in microseconds, or an error of ownership.lua
-- include: ownership
-- include: user

local refusal = other_project(KEYS[3], ARGV[1])
if refusal then return refusal end
-- In this order: after a first write Redis refuses a script no memory, so a refusal must come before all writes.
local created_at = add_user(KEYS[1], ARGV[2])
redis.call("HDEL", KEYS[2], ARGV[2])
return created_at
