-- patch: merge members into a session's configs; an empty value removes the member; values are not parsed.
-- KEYS[1] session     hash of the session
-- ARGV[1] prefix      of the partition's keys
-- ARGV[2] block_size  serials per block
-- ARGV[3] project_id  of the request; the partition's state must name it
-- ARGV[4] partitions  of the request, likewise
-- ARGV[5] conditions  of the request (see precondition.lua)
-- ARGV[6] ttl         seconds from now, 0 for no expiry, "" to leave the expiry unchanged
-- ARGV[7] max_bytes   of the configs after the merge; larger ones may stay or shrink, but not grow
-- ARGV[8] max_keys    at the top level, likewise
-- ARGV[9] max_terms   likewise
-- ARGV[10] members     triples of key as JSON, raw value ("" removes), packed terms (see index.lua)
-- returns {"ok", revision, created_at, updated_at, configs} | {"not_found"} | {"precondition_failed", header} | {"unreadable"}
--       | {"too_large"} | {"too_many_keys"} | {"too_many_terms"} | an error of ownership.lua
-- include: ownership
-- include: ttl
-- include: precondition
-- include: merge

local session = KEYS[1]
local prefix, block_size, conditions, ttl = ARGV[1], tonumber(ARGV[2]), ARGV[5], tonumber(ARGV[6])
local max_bytes, max_keys, max_terms = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])

local error_reply = partition_owner_error(prefix .. "state", ARGV[3], ARGV[4])
if error_reply then return error_reply end

local stored = redis.call("HMGET", session, "configs", "terms", "revision", "serial", "created_at", "updated_at", "expires_at")
if not stored[1] or is_expired(stored[7]) then return not_found(conditions) end
if not are_numbers(stored[3], stored[4], stored[5], stored[6]) then return { "unreadable" } end
if stored[7] and not parse_expires_at(stored[7]) then return { "unreadable" } end
local failure = condition_failure(conditions, stored[5], stored[3])
if failure then return failure end

local keys, values, terms_of = {}, {}, {}
for i = 10, #ARGV, 3 do
  local key = ARGV[i]
  keys[#keys + 1], values[key], terms_of[key] = key, ARGV[i + 1], ARGV[i + 2]
end

local old_terms = {}
local terms = merge(stored[2] or "{}", keys, terms_of, old_terms)
-- Reading the old values costs time; it pays only where equal terms make equal values likely.
local old_values = terms == stored[2] and {} or nil
local configs, key_count = merge(stored[1] == "null" and "{}" or stored[1], keys, values, old_values)
if not configs or not terms then return { "unreadable" } end
-- Configs over a limit were written when it was higher: they may keep their size or shrink, but not grow.
if #configs > max_bytes and #configs > #stored[1] then return { "too_large" } end
if key_count > max_keys and key_count > count_members(stored[1]) then return { "too_many_keys" } end
-- Counting terms reads all of them; skip it unless there could be too many.
if #terms > max_terms then
  local count = count_terms(terms)
  if count > max_terms and count > count_terms(stored[2] or "{}") then return { "too_many_terms" } end
end

local had, has = {}, {}
for _, key in ipairs(keys) do
  local before, after = old_terms[key] or "", terms_of[key]
  if before ~= after then
    local text = key_text(key)
    unpack_terms(text, before, had)
    unpack_terms(text, after, has)
  end
end
local removed, added = term_difference(had, has)

-- What stays as it is does not go through the append-only file again.
local fields = {}
if configs ~= stored[1] then fields[1], fields[2] = "configs", configs end
if terms ~= stored[2] then fields[#fields + 1], fields[#fields + 2] = "terms", terms end

local revision, updated_at = commit({
  operation = "patch", session = session, prefix = prefix, block_size = block_size, serial = tonumber(stored[4]),
  revision = tonumber(stored[3]), not_before = tonumber(stored[6]), fields = fields,
  size = #configs, size_before = #stored[1],
  expires_at = expires_at_for(ttl), had_expiry = stored[7],
  keys = keys, removed = removed, added = added,
})
return { "ok", revision, stored[5], updated_at, configs }
