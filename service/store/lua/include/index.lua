-- The index: for each block of serials and each term, the set of serials whose session has the term; and for each term, the
-- set of blocks in which it occurs. Invariant: a block is in `blocks:<term>` exactly while `index:<block>:<term>` exists.
-- include: batches

local EXISTS_BATCH = 64 -- keys a call
local call = redis.call
-- Signs that can follow a key in a term: = . [ { ~
local FOLLOWS_A_KEY = { [61] = true, [46] = true, [91] = true, [123] = true, [126] = true }

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
    list[#list + 1] = FOLLOWS_A_KEY[byte(term)] and own .. term or term
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

-- Takes `member` out of the sets `from` and adds it to the sets `to`. SMOVE does both in one command, which also goes to the file and
-- to replicas once; it adds nothing where `member` was not in the first set.
local function move(member, from, to)
  local paired = math.min(#from, #to)
  for i = 1, paired do
    if call("SMOVE", from[i], to[i], member) == 0 then call("SADD", to[i], member) end
  end
  for i = paired + 1, #from do call("SREM", from[i], member) end
  for i = paired + 1, #to do call("SADD", to[i], member) end
end

-- Takes `serial` out of the sets of `removed` and adds it to those of `added`. Most sets outlive a change and exist before it, or
-- are one session's alone; one EXISTS over many of them tells which, and only the blocks of those that come or go change.
local function update_index(prefix, block_size, serial, removed, added)
  local block = string.format("%.0f", math.floor(serial / block_size))
  local blocks = prefix .. "blocks:"
  local from, to = index_keys(prefix, block, removed), index_keys(prefix, block, added)
  local without, with = {}, {}
  count_existing(to, function(first, last, existing)
    if existing == last - first + 1 then return end
    for i = first, last do with[#with + 1] = blocks .. added[i] end
  end)
  move(string.format("%.0f", serial), from, to)
  count_existing(from, function(first, last, existing)
    if existing == last - first + 1 then return end
    for i = first, last do
      if existing == 0 or call("EXISTS", from[i]) == 0 then without[#without + 1] = blocks .. removed[i] end
    end
  end)
  move(block, without, with)
end
