-- expire: remove a session whose lifetime is over, and all of its index members. One that lives, or is gone, stays as it is.
-- KEYS[1] session     hash of the session
-- KEYS[2] sessions    zset of the partition, id -> serial
-- ARGV[1] prefix      of the partition's keys
-- ARGV[2] block_size  serials a block
-- ARGV[3] project_id  of the request, as the partition's state should have it
-- ARGV[4] partitions  of the request, likewise
-- ARGV[5] id          of the session
-- returns {"expired"} | {"lives"} | {"gone"} | an error of ownership.lua
-- What is answered "lives" or "gone" is afterwards in `expiring` as its hash says: a sweep meets no session for ever.
-- include: ownership
-- include: lifetime
-- include: removal

local session, sessions = KEYS[1], KEYS[2]
local prefix, block_size, id = ARGV[1], tonumber(ARGV[2]), ARGV[5]

local refusal = disowned(prefix .. "state", ARGV[3], ARGV[4])
if refusal then return refusal end

local stored = redis.call("HMGET", session, "configs", "terms", "revision", "serial", "user", "expires_at")
if stored[1] and is_expired(stored[6]) then
  remove({
    operation = "expire", session = session, sessions = sessions, prefix = prefix, block_size = block_size, id = id,
    configs = stored[1], terms = stored[2], revision = stored[3], serial = stored[4], user = stored[5], expires_at = stored[6],
  })
  return { "expired" }
end
if stored[1] and stored[6] and moment_of(stored[6]) then
  redis.call("ZADD", prefix .. "expiring", stored[6], id)
else
  redis.call("ZREM", prefix .. "expiring", id)
end
return { stored[1] and "lives" or "gone" }
