-- expire: remove a session that has expired, and all of its index members.
-- KEYS[1] session     hash of the session
-- KEYS[2] sessions    zset of the partition, id -> serial
-- ARGV[1] prefix      of the partition's keys
-- ARGV[2] block_size  serials per block
-- ARGV[3] project_id  of the request; the partition's state must name it
-- ARGV[4] partitions  of the request, likewise
-- ARGV[5] session_id  of the session
-- returns "expired" | "alive" | "missing" | an error of ownership.lua
-- For "alive" and "missing" it corrects the entry in `expiring` from the hash, so no sweep meets the same wrong entry twice.
-- include: ownership
-- include: ttl
-- include: removal

local session, sessions = KEYS[1], KEYS[2]
local prefix, block_size, id = ARGV[1], tonumber(ARGV[2]), ARGV[5]

local error_reply = partition_owner_error(prefix .. "state", ARGV[3], ARGV[4])
if error_reply then return error_reply end

local stored = redis.call("HMGET", session, "configs", "terms", "revision", "serial", "user", "expires_at")
if stored[1] and is_expired(stored[6]) then
  remove({
    operation = "expire", session = session, sessions = sessions, prefix = prefix, block_size = block_size, id = id,
    configs = stored[1], terms = stored[2], revision = stored[3], serial = stored[4], user = stored[5], expires_at = stored[6],
  })
  return "expired"
end
if stored[1] and stored[6] and parse_expires_at(stored[6]) then
  redis.call("ZADD", prefix .. "expiring", stored[6], id)
else
  redis.call("ZREM", prefix .. "expiring", id)
end
return stored[1] and "alive" or "missing"
