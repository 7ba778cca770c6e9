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

local exists = redis.call("HEXISTS", session, "configs") == 1
local stored = redis.call("HMGET", session, "terms", "revision", "serial", "user", "expires_at")
if exists and is_expired(stored[5]) then
  remove({
    operation = "expire", session = session, sessions = sessions, prefix = prefix, block_size = block_size, id = id,
    terms = stored[1], revision = stored[2], serial = stored[3], user = stored[4], expires_at = stored[5],
  })
  return "expired"
end
if exists and stored[5] and parse_expires_at(stored[5]) then
  redis.call("ZADD", prefix .. "expiring", stored[5], id)
else
  redis.call("ZREM", prefix .. "expiring", id)
end
return exists and "alive" or "missing"
