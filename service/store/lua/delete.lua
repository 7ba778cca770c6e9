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

local stored = redis.call("HMGET", session, "configs", "terms", "revision", "serial", "created_at", "user",
                          "expires_at")
if not stored[1] then return not_found(conditions) end
if user ~= "" and stored[6] ~= user then return { "not_found" } end
local expired = is_expired(stored[7])
if not expired then
  if not are_numbers(stored[3], stored[4], stored[5]) then return { "unreadable" } end
  local failure = condition_failure(conditions, stored[5], stored[3])
  if failure then return failure end
end

remove({
  operation = expired and "expire" or "delete", session = session, sessions = sessions,
  prefix = prefix, block_size = block_size, id = id,
  configs = stored[1], terms = stored[2], revision = stored[3], serial = stored[4], user = stored[6], expires_at = stored[7],
})
return expired and not_found(conditions) or { "ok" }
