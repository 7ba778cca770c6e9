-- delete: remove a session and all of its index members.
-- KEYS[1] session     hash of the session
-- KEYS[2] sessions    zset of the partition, id -> serial
-- ARGV[1] prefix      of the partition's keys
-- ARGV[2] block_size  serials per block
-- ARGV[3] project_id  of the request; the partition's state must name it
-- ARGV[4] partitions  of the request, likewise
-- ARGV[5] conditions  of the request (see precondition.lua)
-- ARGV[6] session_id  of the session
-- ARGV[7] user        delete only if the session is of this user (a JSON string); "" for any user
-- returns {"ok"} | {"not_found"} | {"precondition_failed", header} | {"unreadable"}
--       | an error of ownership.lua
-- An expired session is removed too, and reported as not found.
-- include: ownership
-- include: ttl
-- include: removal
-- include: precondition

local session, sessions = KEYS[1], KEYS[2]
local prefix, block_size, conditions, id, user = ARGV[1], tonumber(ARGV[2]), ARGV[5], ARGV[6], ARGV[7]

local error_reply = partition_owner_error(prefix .. "state", ARGV[3], ARGV[4])
if error_reply then return error_reply end

if redis.call("HEXISTS", session, "configs") == 0 then return not_found(conditions) end
local stored = redis.call("HMGET", session, "terms", "revision", "serial", "created_at", "user", "expires_at")
if user ~= "" and stored[5] ~= user then return { "not_found" } end
local expired = is_expired(stored[6])
if not expired then
  if not are_numbers(stored[2], stored[3], stored[4]) then return { "unreadable" } end
  local failure = condition_failure(conditions, stored[4], stored[2])
  if failure then return failure end
end

remove({
  operation = expired and "expire" or "delete", session = session, sessions = sessions,
  prefix = prefix, block_size = block_size, id = id,
  terms = stored[1], revision = stored[2], serial = stored[3], user = stored[5], expires_at = stored[6],
})
return expired and not_found(conditions) or { "ok" }
