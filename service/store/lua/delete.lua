-- delete: remove a session and all of its index members.
-- KEYS[1] session     hash of the session
-- KEYS[2] sessions    zset of the partition, id -> serial
-- ARGV[1] prefix      of the partition's keys
-- ARGV[2] block_size  serials a block
-- ARGV[3] if_match    "", "*" or ETags joined by commas
-- ARGV[4] id          of the session
-- ARGV[5] user        only a session of this user (a JSON string), or "" for whosever it is
-- returns {"ok"} | {"not_found"} | {"precondition_failed"} | {"unreadable"} | {"moving"}
-- include: commit
-- include: precondition

local session, sessions = KEYS[1], KEYS[2]
local prefix, block_size, if_match, id, user = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]

local stored = redis.call("HMGET", session, "configs", "terms", "revision", "serial", "created_at", "user")
if not stored[1] then return absent(if_match) end
if user ~= "" and stored[6] ~= user then return { "not_found" } end
if not are_numbers(stored[3], stored[4], stored[5]) then return { "unreadable" } end
if not precondition_holds(if_match, stored[5], stored[3]) then return { "precondition_failed" } end

local removed = all_terms(stored[2] or "{}")
if stored[6] then removed[#removed + 1] = "@user=" .. stored[6] end

local revision = commit({
  operation = "delete", session = session, prefix = prefix, block_size = block_size, serial = tonumber(stored[4]),
  revision = tonumber(stored[3]), not_before = 0, fields = nil,
  before = stored[1], removed = removed, added = {},
  own = function() redis.call("ZREM", sessions, id) end,
})
if not revision then return MOVING end
return { "ok" }
