-- The index: for each block of serials and each term, the set of serials whose session has the term; and for each term, the
-- set of blocks in which it occurs. Invariant: a block is in `blocks:<term>` exactly while `index:<block>:<term>` exists.

local EXISTS_BATCH = 64 -- keys a call
local call = redis.call

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

-- The keys of `terms` that start with `start`.
local function term_keys(start, terms)
  local keys = {}
  for i, term in ipairs(terms) do keys[i] = start .. term end
  return keys
end

-- Calls visit(first, last, existing) for every run of EXISTS_BATCH keys, with the number of them that exist. Returns false
-- where a key is out of reach: a Redis Cluster that moves a slot has some of its keys elsewhere already.
local function count_existing(keys, visit)
  for first = 1, #keys, EXISTS_BATCH do
    local last = math.min(first + EXISTS_BATCH - 1, #keys)
    local existing = redis.pcall("EXISTS", unpack(keys, first, last))
    if type(existing) == "table" then return false end
    visit(first, last, existing)
  end
  return true
end

-- Nothing to do but to be in reach.
local function reached() end

-- The change that takes `serial` out of the sets of `removed` and puts it into those of `added`, planned before anything is
-- written; nil where a key of it is out of reach.
local function plan_index(prefix, block_size, serial, removed, added)
  local block = string.format("%.0f", math.floor(serial / block_size))
  local sets, blocks = prefix .. "index:" .. block .. ":", prefix .. "blocks:"
  local change = {
    serial = serial, block = block, new = {},
    removed = term_keys(sets, removed), removed_blocks = term_keys(blocks, removed),
    added = term_keys(sets, added), added_blocks = term_keys(blocks, added),
  }
  local reachable = count_existing(change.removed, reached) and count_existing(change.removed_blocks, reached)
    and count_existing(change.added_blocks, reached)
    and count_existing(change.added, function(first, last, existing)
      for i = first, last do change.new[i] = existing < last - first + 1 end
    end)
  return reachable and change or nil
end

-- Makes a planned change. Most sets outlive it and existed before it, or are all of one session's own; one EXISTS over many of
-- them tells either, and the blocks are seen to where they change.
local function change_index(change)
  local serial, block, removed, added = change.serial, change.block, change.removed, change.added
  for _, set in ipairs(removed) do call("SREM", set, serial) end
  count_existing(removed, function(first, last, existing)
    if existing == last - first + 1 then return end
    for i = first, last do
      if existing == 0 or call("EXISTS", removed[i]) == 0 then call("SREM", change.removed_blocks[i], block) end
    end
  end)
  for i, set in ipairs(added) do
    call("SADD", set, serial)
    if change.new[i] then call("SADD", change.added_blocks[i], block) end
  end
end
