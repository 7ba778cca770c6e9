-- replace: replace all configs of a session.
-- KEYS[1] session     hash of the session
-- ARGV[1] prefix      of the partition's keys
-- ARGV[2] block_size  serials per block
-- ARGV[3] project_id  of the request; the partition's state must name it
-- ARGV[4] partitions  of the request, likewise
-- ARGV[5] conditions  of the request (see precondition.lua)
-- ARGV[6] ttl         seconds from now, 0 for no expiry, "" to leave the expiry unchanged
-- ARGV[7] configs     stored form
-- ARGV[8] terms       stored form
-- returns {"ok", revision, created_at, updated_at} | {"not_found"} | {"precondition_failed", header} | {"unreadable"}
--       | an error of ownership.lua
-- include: ownership
-- include: ttl
-- include: precondition

local session = KEYS[1]
local prefix, block_size, conditions, ttl = ARGV[1], tonumber(ARGV[2]), ARGV[5], tonumber(ARGV[6])
local configs, terms = ARGV[7], ARGV[8]

local error_reply = partition_owner_error(prefix .. "state", ARGV[3], ARGV[4])
if error_reply then return error_reply end

local size_before = configs_size(session)
local stored = redis.call("HMGET", session, "terms", "revision", "serial", "created_at", "updated_at", "expires_at")
if not size_before or is_expired(stored[6]) then return not_found(conditions) end
if not are_numbers(stored[2], stored[3], stored[4], stored[5]) then return { "unreadable" } end
if stored[6] and not parse_expires_at(stored[6]) then return { "unreadable" } end
local failure = condition_failure(conditions, stored[4], stored[2])
if failure then return failure end

local removed, added = {}, {}
if stored[1] ~= terms then removed, added = term_difference(all_terms(stored[1] or "{}"), all_terms(terms)) end

local revision, updated_at = commit({
  operation = "replace", session = session, prefix = prefix, block_size = block_size, serial = tonumber(stored[3]),
  revision = tonumber(stored[2]), not_before = tonumber(stored[5]), fields = { "configs", configs, "terms", terms },
  size = #configs, size_before = size_before,
  expires_at = expires_at_for(ttl), had_expiry = stored[6],
  removed = removed, added = added,
})
return { "ok", revision, stored[4], updated_at }
