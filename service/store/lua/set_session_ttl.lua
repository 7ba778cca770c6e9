-- set_session_ttl: copy the project's default TTL to a partition, unless the partition has a later revision of it.
-- KEYS[1] state       hash of the partition
-- ARGV[1] project_id  of the request; the partition's state must name it
-- ARGV[2] partitions  of the request, likewise
-- ARGV[3] revision    of the project's configs that contain it
-- ARGV[4] ttl         seconds, or "" for no default
-- returns 1 if it was written, 0 if the partition has this or a later revision; or an error of ownership.lua
-- include: ownership

local state, revision, ttl = KEYS[1], ARGV[3], ARGV[4]

local error_reply = partition_owner_error(state, ARGV[1], ARGV[2])
if error_reply then return error_reply end

local stored_revision = redis.call("HGET", state, "session_ttl_revision") or ""
if (tonumber(stored_revision) or 0) >= tonumber(revision) then return 0 end
redis.call("HSET", state, "session_ttl_revision", revision)
if ttl == "" then
  redis.call("HDEL", state, "session_ttl")
else
  redis.call("HSET", state, "session_ttl", ttl)
end
return 1
