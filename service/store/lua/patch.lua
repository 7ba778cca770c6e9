-- patch: merge members into a session's configs; a member without a value is removed; no value is ever parsed.
-- KEYS[1] session     hash of the session
-- ARGV[1] prefix      of the partition's keys
-- ARGV[2] block_size  serials a block
-- ARGV[3] project_id  of the request, as the partition's state should have it
-- ARGV[4] partitions  of the request, likewise
-- ARGV[5] conditions  of the request (see precondition.lua)
-- ARGV[6] ttl         lifetime from now on in seconds, 0 for none, "" to leave it as it is
-- ARGV[7] max_bytes   of the configs after the merge, unless they were as large before
-- ARGV[8] max_keys    at the top, as above
-- ARGV[9] max_terms   as above
-- ARGV[10] members     three each: key as JSON, raw value ("" removes), terms as the session keeps them
-- returns {"ok", revision, created_at, updated_at, configs} | {"not_found"} | {"precondition_failed", header} | {"unreadable"}
--       | {"too_large"} | {"too_many_keys"} | {"too_many_terms"} | an error of ownership.lua
-- include: ownership
-- include: lifetime
-- include: precondition

local session = KEYS[1]
local prefix, block_size, conditions, ttl = ARGV[1], tonumber(ARGV[2]), ARGV[5], tonumber(ARGV[6])
local max_bytes, max_keys, max_terms = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])

local refusal = disowned(prefix .. "state", ARGV[3], ARGV[4])
if refusal then return refusal end

local stored = redis.call("HMGET", session, "configs", "terms", "revision", "serial", "created_at", "updated_at", "expires_at")
if not stored[1] or is_expired(stored[7]) then return absent(conditions) end
if not are_numbers(stored[3], stored[4], stored[5], stored[6]) then return { "unreadable" } end
if stored[7] and not moment_of(stored[7]) then return { "unreadable" } end
local failure = condition_failure(conditions, stored[5], stored[3])
if failure then return failure end

local keys, values, terms_of = {}, {}, {}
for i = 10, #ARGV, 3 do
  local key = ARGV[i]
  keys[#keys + 1], values[key], terms_of[key] = key, ARGV[i + 1], ARGV[i + 2]
end

local configs, key_count = merge(stored[1] == "null" and "{}" or stored[1], keys, values)
local old_terms = {}
local terms = merge(stored[2] or "{}", keys, terms_of, old_terms)
if not configs or not terms then return { "unreadable" } end
-- A session that was written under higher limits may stay as large as it is, or shrink: growth alone is refused.
if #configs > max_bytes and #configs > #stored[1] then return { "too_large" } end
if key_count > max_keys and key_count > count_members(stored[1]) then return { "too_many_keys" } end
-- Counting terms reads all of them, so it is only done where there could be too many.
if #terms > max_terms then
  local count = count_terms(terms)
  if count > max_terms and count > count_terms(stored[2] or "{}") then return { "too_many_terms" } end
end

local had, has = {}, {}
for _, key in ipairs(keys) do
  local before, after = old_terms[key] or "", terms_of[key]
  if before ~= after then
    unpack_terms(key, before, had)
    unpack_terms(key, after, has)
  end
end
local removed, added = term_difference(had, has)

local revision, updated_at = commit({
  operation = "patch", session = session, prefix = prefix, block_size = block_size, serial = tonumber(stored[4]),
  revision = tonumber(stored[3]), not_before = tonumber(stored[6]), fields = { "configs", configs, "terms", terms },
  expires_at = lifetime(ttl), had_expiry = stored[7],
  before = stored[1], keys = keys, removed = removed, added = added,
})
return { "ok", revision, stored[5], updated_at, configs }
