-- The index: for each block of serials and each term, the set of serials whose session has the term; and for each term, the
-- set of blocks in which it occurs. Invariant: a block is in `blocks:<term>` exactly while `index:<block>:<term>` exists.
-- include: lines

local EXISTS_BATCH = 64 -- keys per call
local call = redis.call

-- Fails unless all keys of the partition can be reached; call it before the first write. While a Redis Cluster node migrates a
-- slot, it refuses, even in the middle of a script, each key of the slot that it does not hold: migrated already, or new. The key
-- `never` does not exist, so a migrating slot refuses it; if it does not, no other key is refused until the script ends.
local function check_reach(prefix)
  call("EXISTS", prefix .. "never")
end

-- Packed terms omit the text of their member's key: `="bot1"` of the key `"agent"` is the term agent="bot1".
local function key_text(key)
  return match(key, '^"([%w_-]+)"$') or key
end

-- One of the packed terms, whole. A term that is stored whole starts with none of = . [ { ~, which can follow a key.
local function whole_term(text, packed)
  local first = byte(packed)
  local follows_key = first == 61 or first == 46 or first == 91 or first == 123 or first == 126
  return follows_key and text .. packed or packed
end

-- Adds the packed terms of a member, whose key has the text `text`, to `list`. `!` means no terms.
local function unpack_terms(text, packed, list)
  if packed == "" or packed == "!" then return end
  -- Most members have one term.
  if not find(packed, "\t", 1, true) then
    list[#list + 1] = whole_term(text, packed)
    return
  end
  for term in string.gmatch(packed, "[^\t]+") do list[#list + 1] = whole_term(text, term) end
end

-- All terms in a session's `terms` field.
local function all_terms(text)
  local list, position = {}, 3
  while position do
    -- Most lines have a key without escapes and one term; one match takes both.
    local key, packed, next_line = match(text, '^"([%w_-]+)":([=.%[{~][^\t\n]*),\n()', position)
    if key then
      list[#list + 1] = key .. packed
    else
      local from, to
      next_line, key, from, to = next_member(text, position)
      if key then unpack_terms(key_text(key), sub(text, from, to), list) end
    end
    position = next_line
  end
  return list
end

-- The terms of `old` that are not in `new`, and those of `new` that are not in `old`.
local function term_difference(old, new)
  local is_new, removed, added = {}, {}, {}
  for _, term in ipairs(new) do is_new[term] = true end
  for _, term in ipairs(old) do
    if is_new[term] == nil then removed[#removed + 1] = term else is_new[term] = false end
  end
  for _, term in ipairs(new) do
    if is_new[term] then added[#added + 1] = term end
  end
  return removed, added
end

local function index_keys(prefix, block, terms)
  local keys, start = {}, prefix .. "index:" .. block .. ":"
  for i, term in ipairs(terms) do keys[i] = start .. term end
  return keys
end

-- How many of the `keys` from `first` to `last` exist, which are EXISTS_BATCH at most.
local function count_existing(keys, first, last)
  return call("EXISTS", unpack(keys, first, last))
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
  for first = 1, #to, EXISTS_BATCH do
    local last = math.min(first + EXISTS_BATCH - 1, #to)
    if count_existing(to, first, last) <= last - first then
      for i = first, last do created[#created + 1] = blocks .. added[i] end
    end
  end
  move(string.format("%.0f", serial), from, to)
  for first = 1, #from, EXISTS_BATCH do
    local last = math.min(first + EXISTS_BATCH - 1, #from)
    local existing = count_existing(from, first, last)
    if existing <= last - first then
      for i = first, last do
        if existing == 0 or call("EXISTS", from[i]) == 0 then emptied[#emptied + 1] = blocks .. removed[i] end
      end
    end
  end
  move(block, emptied, created)
end
