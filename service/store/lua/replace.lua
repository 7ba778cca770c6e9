-- replace: put new configs in the place of all that a session has.
-- KEYS[1] session     hash of the session
-- ARGV[1] prefix      of the partition's keys
-- ARGV[2] block_size  serials a block
-- ARGV[3] if_match    "", "*" or ETags joined by commas
-- ARGV[4] configs     stored form
-- ARGV[5] terms       stored form
-- returns {"ok", revision, created_at, updated_at} | {"not_found"} | {"precondition_failed"} | {"unreadable"} | {"moving"}
-- include: commit
-- include: precondition

local session = KEYS[1]
local prefix, block_size, if_match, configs, terms = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]

local stored = redis.call("HMGET", session, "configs", "terms", "revision", "serial", "created_at", "updated_at")
if not stored[1] then return absent(if_match) end
if not are_numbers(stored[3], stored[4], stored[5], stored[6]) then return { "unreadable" } end
if not precondition_holds(if_match, stored[5], stored[3]) then return { "precondition_failed" } end

local removed, added = {}, {}
if stored[2] ~= terms then removed, added = term_difference(all_terms(stored[2] or "{}"), all_terms(terms)) end

local revision, updated_at = commit({
  operation = "replace", session = session, prefix = prefix, block_size = block_size, serial = tonumber(stored[4]),
  revision = tonumber(stored[3]), not_before = tonumber(stored[6]), fields = { "configs", configs, "terms", terms },
  before = stored[1], removed = removed, added = added,
})
if not revision then return MOVING end
return { "ok", revision, stored[5], updated_at }
