-- The index: for each block of serials and each term, the set of serials whose session has the term; and for each term, the
-- set of blocks in which it occurs. Invariant: a block is in `blocks:<term>` exactly while `index:<block>:<term>` exists.
-- include: batches

local EXISTS_BATCH = 64 -- keys a call
local call = redis.call

-- Fails where not all keys of the partition can be reached; called before the first write. A node of a Redis Cluster that moves a
-- slot refuses, in the middle of a script, each key of the slot that it does not hold: moved already, or new. This key is never
-- there: it is refused on a slot that moves, and where it is not, no other will be until the script ends.
local function check_reach(prefix)
  call("EXISTS", prefix .. "never")
end

-- Adds the terms that a session keeps beside `key` to `list`. They are kept without the key's own text: `="bot1"` beside
-- `"agent"` is the term agent="bot1". A term that is kept whole starts with none of the signs that can follow a key. A member
-- without terms has `!`.
local function unpack_terms(key, packed, list)
  if packed == "!" then return end
  local own = match(key, '^"([%w_-]+)"$') or key
  for term in string.gmatch(packed, "[^\t]+") do
    list[#list + 1] = find(term, "^[=.%[{~]") and own .. term or term
  end
end

-- All terms in a session's `terms` field.
local function all_terms(text)
  local list = {}
  for key, _, from, to in members(text) do
    if key then unpack_terms(key, sub(text, from, to), list) end
  end
  return list
end

-- How many terms a session's `terms` field has; a member without any counts as one.
local function count_terms(text)
  local _, tabs = string.gsub(text, "\t", "")
  return tabs + count_members(text)
end

-- The terms of `old` that are not in `new`, and the other way round.
local function term_difference(old, new)
  local had, has, removed, added = {}, {}, {}, {}
  for _, term in ipairs(old) do had[term] = true end
  for _, term in ipairs(new) do
    has[term] = true
    if not had[term] then added[#added + 1] = term end
  end
  for _, term in ipairs(old) do
    if not has[term] then removed[#removed + 1] = term end
  end
  return removed, added
end

local function index_keys(prefix, block, terms)
  local keys, start = {}, prefix .. "index:" .. block .. ":"
  for i, term in ipairs(terms) do keys[i] = start .. term end
  return keys
end

-- Calls visit(first, last, existing) for every run of EXISTS_BATCH keys, with the number of them that exist.
local function count_existing(keys, visit)
  each_batch(#keys, EXISTS_BATCH, function(first, last) visit(first, last, call("EXISTS", unpack(keys, first, last))) end)
end

-- Takes `serial` out of the sets of `removed` and puts it into those of `added`. Most sets outlive a change and exist before
-- it, or are all of one session's own; one EXISTS over many of them tells either, and the blocks are seen to where they change.
local function update_index(prefix, block_size, serial, removed, added)
  local block = string.format("%.0f", math.floor(serial / block_size))
  local blocks = prefix .. "blocks:"
  local sets = index_keys(prefix, block, removed)
  for _, set in ipairs(sets) do call("SREM", set, serial) end
  count_existing(sets, function(first, last, existing)
    if existing == last - first + 1 then return end
    for i = first, last do
      if existing == 0 or call("EXISTS", sets[i]) == 0 then call("SREM", blocks .. removed[i], block) end
    end
  end)
  sets = index_keys(prefix, block, added)
  count_existing(sets, function(first, last, existing)
    for i = first, last do
      call("SADD", sets[i], serial)
      if existing < last - first + 1 then call("SADD", blocks .. added[i], block) end
    end
  end)
end
