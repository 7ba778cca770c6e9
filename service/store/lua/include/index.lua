-- The index: for each block of serials and each term, the set of serials whose session has the term; and for each term, the
-- set of blocks in which it occurs. Invariant: a block is in `blocks:<term>` exactly while `index:<block>:<term>` exists.

local EXISTS_BATCH = 1000 -- keys a call, well below what Lua's stack unpacks

-- Adds the terms in one line of a session's terms to `list`, and returns it.
local function split_terms(joined, list)
  for term in string.gmatch(joined, "[^\t]+") do list[#list + 1] = term end
  return list
end

-- All terms in a session's `terms` field.
local function all_terms(text)
  local list = {}
  for key, _, from, to in members(text) do
    if key then split_terms(sub(text, from, to), list) end
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

local function all_exist(keys)
  for first = 1, #keys, EXISTS_BATCH do
    local last = math.min(first + EXISTS_BATCH - 1, #keys)
    if redis.call("EXISTS", unpack(keys, first, last)) < last - first + 1 then return false end
  end
  return true
end

local function index_keys(prefix, block, terms)
  local keys = {}
  for i, term in ipairs(terms) do keys[i] = prefix .. "index:" .. block .. ":" .. term end
  return keys
end

-- Takes `serial` out of the sets of `removed` and puts it into those of `added`. Most sets outlive a change and exist before
-- it, which one EXISTS over all of them tells; only otherwise the blocks are seen to.
local function update_index(prefix, block_size, serial, removed, added)
  local block = string.format("%.0f", math.floor(serial / block_size))
  local sets = index_keys(prefix, block, removed)
  for _, set in ipairs(sets) do redis.call("SREM", set, serial) end
  if not all_exist(sets) then
    for i, set in ipairs(sets) do
      if redis.call("EXISTS", set) == 0 then redis.call("SREM", prefix .. "blocks:" .. removed[i], block) end
    end
  end
  sets = index_keys(prefix, block, added)
  local known = all_exist(sets)
  for i, set in ipairs(sets) do
    redis.call("SADD", set, serial)
    if not known then redis.call("SADD", prefix .. "blocks:" .. added[i], block) end
  end
end
