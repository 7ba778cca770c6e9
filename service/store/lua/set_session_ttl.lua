-- set_session_ttl: tell a partition the default lifetime of its project's sessions, unless it knows of a later change.
-- KEYS[1] state       hash of the partition
-- ARGV[1] revision    of the project's configs that say so
-- ARGV[2] ttl         seconds, or "" for no default
-- returns 1 where it was told, 0 where it knows better

local state, revision, ttl = KEYS[1], ARGV[1], ARGV[2]

local known = redis.call("HGET", state, "session_ttl_revision") or ""
if (tonumber(known) or 0) >= tonumber(revision) then return 0 end
redis.call("HSET", state, "session_ttl_revision", revision)
if ttl == "" then
  redis.call("HDEL", state, "session_ttl")
else
  redis.call("HSET", state, "session_ttl", ttl)
end
return 1
