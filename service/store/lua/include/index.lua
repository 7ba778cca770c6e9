-- The index: for each block of serials and each term, the set of serials whose session has the term; and for each term, the
-- set of blocks in which it occurs. Invariant: a block is in `blocks:<term>` exactly while `index:<block>:<term>` exists.
-- include: batches

local EXISTS_BATCH = 64 -- keys per call
local call = redis.call
-- Characters that can follow a key in a term: = . [ { ~
local AFTER_KEY = { [61] = true, [46] = true, [91] = true, [123] = true, [126] = true }

-- Fails unless all keys of the partition can be reached; call it before the first write. While a Redis Cluster node migrates a
-- slot, it refuses, even in the middle of a script, each key of the slot that it does not hold: migrated already, or new. The key
-- `never` does not exist, so a migrating slot refuses it; if it does not, no other key is refused until the script ends.
local function check_reach(prefix)
  call("EXISTS", prefix .. "never")
end

-- Adds the packed terms of the member `key` to `list`. They omit the key's text: `="bot1"` of the key `"agent"` is the term
-- agent="bot1". A term that is stored whole starts with none of the characters that can follow a key. `!` means no terms.
local function unpack_terms(key, packed, list)
  if packed == "!" then return end
  local key_text = match(key, '^"([%w_-]+)"$') or key
  for term in string.gmatch(packed, "[^\t]+") do
    list[#list + 1] = AFTER_KEY[byte(term)] and key_text .. term or term
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

-- The number of terms in a session's `terms` field; a member without terms counts as one.
local function count_terms(text)
  local _, tabs = string.gsub(text, "\t", "")
  return tabs + count_members(text)
end

-- The terms of `old` that are not in `new`, and those of `new` that are not in `old`.
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

-- Calls visit(first, last, existing) for every EXISTS_BATCH keys, with the number of them that exist.
local function count_existing(keys, visit)
  each_batch(#keys, EXISTS_BATCH, function(first, last) visit(first, last, call("EXISTS", unpack(keys, first, last))) end)
end

-- Removes `member` from the sets `from` and adds it to the sets `to`. SMOVE does both in one command, so the append-only file and
-- replicas get one command too; it adds nothing if `member` was not in the first set.
local function move(member, from, to)
  local paired = math.min(#from, #to)
  for i = 1, paired do
    if call("SMOVE", from[i], to[i], member) == 0 then call("SADD", to[i], member) end
  end
  for i = paired + 1, #from do call("SREM", from[i], member) end
  for i = paired + 1, #to do call("SADD", to[i], member) end
end

-- Removes `serial` from the sets of the terms `removed` and adds it to those of `added`. A term's `blocks:` set changes only if
-- the write creates or empties its index set; one EXISTS over many index sets shows which.
local function update_index(prefix, block_size, serial, removed, added)
  local block = string.format("%.0f", math.floor(serial / block_size))
  local blocks = prefix .. "blocks:"
  local from, to = index_keys(prefix, block, removed), index_keys(prefix, block, added)
  local emptied, created = {}, {}
  count_existing(to, function(first, last, existing)
    if existing == last - first + 1 then return end
    for i = first, last do created[#created + 1] = blocks .. added[i] end
  end)
  move(string.format("%.0f", serial), from, to)
  count_existing(from, function(first, last, existing)
    if existing == last - first + 1 then return end
    for i = first, last do
      if existing == 0 or call("EXISTS", from[i]) == 0 then emptied[#emptied + 1] = blocks .. removed[i] end
    end
  end)
  move(block, emptied, created)
end
