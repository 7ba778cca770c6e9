-- find: the next sessions as they are, in the order of their serials, that have all of the demanded terms. Reads only.
-- KEYS[1] sessions    zset of the partition, id -> serial
-- ARGV[1] prefix      of the partition's keys
-- ARGV[2] block_size  serials a block
-- ARGV[3] after       serial to go on after, or "" to begin
-- ARGV[4] descending  0 or 1
-- ARGV[5] wanted      candidates to return at most
-- ARGV[6] max_bytes   bytes of configs of all candidates at most; the first candidate always fits
-- ARGV[7] demands     two each: term, and the spill term that serves instead ("" for none); without any: all sessions
-- returns {1 if there may be more, else 0, serial to go on after, members looked at, TIME, session, session, …}
--         with each session as {the fields of its hash as FIELDS names them, its serial, its id}
--
-- First the blocks in which all terms occur, by one SINTER of the terms' `blocks:` sets. Then, block by block from `after`:
-- where all sets are dense, windows of consecutive serials are probed with SMISMEMBER, which fills a page at once; else the
-- block's sets are intersected. A call looks at a bounded number of blocks and members, then says where it stopped.
-- include: batches

local FIELDS = {
  "configs", "revision", "user", "created_at", "updated_at", "disable_task_tracking", "serial", "expires_at",
}
local MAX_DEMANDS = 8   -- the rarest; a candidate is checked in full afterwards, so fewer demands only cost candidates
local MAX_BLOCKS = 32
local MAX_COST = 12000  -- members looked at, roughly 0.1 µs each
local PROBE_COST = 3    -- a probe in members of an intersection
local BLOCK_COST = 100  -- a block in members of an intersection
local WINDOW_MIN, WINDOW_MAX = 32, 512

local sessions = KEYS[1]
local prefix, block_size, after, descending = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == "1"
local wanted, max_bytes = tonumber(ARGV[5]), tonumber(ARGV[6])
local call = redis.call

local function before(a, b)
  if descending then return a > b end
  return a < b
end

-- The members of a set reply as numbers, in walking order. A reply from integer sets is sorted already; it is only turned.
local function in_order(members)
  local list, sorted = {}, true
  for i = 1, #members do
    list[i] = tonumber(members[i])
    if i > 1 and list[i] < list[i - 1] then sorted = false end
  end
  if not sorted then
    table.sort(list, before)
  elseif descending then
    for i = 1, math.floor(#list / 2) do list[i], list[#list + 1 - i] = list[#list + 1 - i], list[i] end
  end
  return list
end

-- Those of `list` that are in the set `key`, or in `other` where that is given.
local function held(list, key, other)
  local kept = {}
  each_batch(#list, BATCH, function(from, to)
    local first = call("SMISMEMBER", key, unpack(list, from, to))
    local second = other and call("SMISMEMBER", other, unpack(list, from, to))
    for i = from, to do
      local place = i - from + 1
      if first[place] == 1 or (second and second[place] == 1) then kept[#kept + 1] = list[i] end
    end
  end)
  return kept
end

-- The demands in use: those whose terms occur in the fewest blocks.
local function read_demands()
  local demands = {}
  for i = 7, #ARGV, 2 do
    local demand = { term = ARGV[i], blocks = prefix .. "blocks:" .. ARGV[i] }
    local spill = ARGV[i + 1]
    if spill ~= "" and call("EXISTS", prefix .. "blocks:" .. spill) == 1 then
      demand.spill, demand.spill_blocks = spill, prefix .. "blocks:" .. spill
    end
    demands[#demands + 1] = demand
  end
  if #demands > MAX_DEMANDS then
    for _, demand in ipairs(demands) do
      demand.count = call("SCARD", demand.blocks) + (demand.spill and call("SCARD", demand.spill_blocks) or 0)
    end
    table.sort(demands, function(a, b) return a.count < b.count end)
    for i = #demands, MAX_DEMANDS + 1, -1 do demands[i] = nil end
  end
  return demands
end

-- Members common to all `sets`, each {key} or {key, other key that serves instead}, in walking order.
local function intersect(sets)
  local plain, mixed = {}, {}
  for _, set in ipairs(sets) do
    if set[2] then mixed[#mixed + 1] = set else plain[#plain + 1] = set[1] end
  end
  local list
  if #plain > 0 then
    list = in_order(call("SINTER", unpack(plain)))
  else
    list = in_order(call("SUNION", mixed[1][1], mixed[1][2]))
    table.remove(mixed, 1)
  end
  for _, set in ipairs(mixed) do list = held(list, set[1], set[2]) end
  return list
end

local function blocks_to_visit(demands)
  local sets = {}
  for i, demand in ipairs(demands) do sets[i] = { demand.blocks, demand.spill_blocks } end
  return intersect(sets)
end

-- The block's sets in the form of `intersect`, rarest first, with the size of the smallest and the share of its `serials` that
-- have all of them if they were independent; nil where a set without an alternative is empty.
local function block_sets(block, serials, demands)
  local sets, share = {}, 1
  for i, demand in ipairs(demands) do
    local key = prefix .. "index:" .. block .. ":" .. demand.term
    local count, other = call("SCARD", key), nil
    if demand.spill then
      other = prefix .. "index:" .. block .. ":" .. demand.spill
      local spilled = call("SCARD", other)
      if spilled == 0 then other = nil end
      count = count + spilled
    end
    if count == 0 then return nil end
    sets[i] = { key, other, count = count }
    share = share * math.min(1, count / serials)
  end
  table.sort(sets, function(a, b) return a.count < b.count end)
  return sets, sets[1].count, share
end

local cost = 0
-- Beyond it there is nothing to probe: the last block is rarely full.
local newest = tonumber(call("ZREVRANGE", sessions, 0, 0, "WITHSCORES")[2]) or 0

-- Candidates of a dense block: consecutive serials from `from` to `to` are probed until enough are found or the call has
-- cost enough. Returns them and the last serial that was looked at.
local function probe(sets, from, to, needed, share)
  local step = descending and -1 or 1
  local found, at = {}, from
  local window = math.max(WINDOW_MIN, math.min(WINDOW_MAX, math.ceil(needed / share)))
  while not before(to, at) and #found < needed and cost < MAX_COST do
    local stop = at + step * (window - 1)
    if before(to, stop) then stop = to end
    local list = {}
    for serial = at, stop, step do list[#list + 1] = serial end
    for _, set in ipairs(sets) do
      cost = cost + #list * PROBE_COST
      list = held(list, set[1], set[2])
    end
    for _, serial in ipairs(list) do found[#found + 1] = serial end
    at = stop + step
  end
  return found, at - step
end

-- Candidates of `block` beyond `after`, the last serial that was looked at, and whether it is the block's last.
local function candidates(block, demands, needed)
  local low, high = block * block_size, (block + 1) * block_size - 1
  local top = math.min(high, newest)
  local from, to = low, top
  if descending then from, to = top, low end
  if after and not before(after, from) then from = descending and after - 1 or after + 1 end
  if before(to, from) then return {}, descending and low or high, true end
  local sets, smallest, share = block_sets(string.format("%.0f", block), top - low + 1, demands)
  if not sets then return {}, to, true end
  if needed / share * PROBE_COST < smallest * #sets then
    local found, last = probe(sets, from, to, needed, share)
    return found, last, last == to
  end
  cost = cost + smallest * #sets
  local found = {}
  for _, serial in ipairs(intersect(sets)) do
    if not before(serial, from) then found[#found + 1] = serial end
  end
  return found, to, true
end

local reply = { 1, "", 0, call("TIME") }
local found_count, bytes, visited = 0, 0, 0

-- Add a candidate to the reply, its serial as text; false where it is the last one, or does not fit any more.
local function add(serial, id)
  local key = prefix .. "session:" .. id
  local stored = redis.pcall("HMGET", key, unpack(FIELDS))
  -- A key that is no hash is no session. Any other error ends the call: on a slot that moves, sessions would be missing else.
  if stored.err and not string.find(stored.err, "WRONGTYPE", 1, true) then redis.call("HMGET", key, unpack(FIELDS)) end
  if not stored.err and stored[1] then
    bytes = bytes + #stored[1]
    if found_count > 0 and bytes > max_bytes then return false end
    found_count = found_count + 1
    stored[#FIELDS + 1], stored[#FIELDS + 2] = serial, id
    reply[found_count + 4] = stored
  end
  reply[2] = serial
  return found_count < wanted
end

local function finish()
  reply[3] = cost + visited * BLOCK_COST
  return reply
end

-- Finish a call that has looked at all sessions there are: what is created later comes after it.
local function complete()
  reply[1], reply[2] = 0, descending and "0" or string.format("%.0f", math.max(newest, after or 0))
  return finish()
end

local function all_sessions()
  local from = after and "(" .. ARGV[3]
  local pairs_found
  if descending then
    pairs_found = call("ZREVRANGEBYSCORE", sessions, from or "+inf", "-inf", "WITHSCORES", "LIMIT", 0, wanted)
  else
    pairs_found = call("ZRANGEBYSCORE", sessions, from or "-inf", "+inf", "WITHSCORES", "LIMIT", 0, wanted)
  end
  for i = 1, #pairs_found, 2 do
    if not add(pairs_found[i + 1], pairs_found[i]) then return finish() end
  end
  return #pairs_found < 2 * wanted and complete() or finish()
end

local demands = read_demands()
if #demands == 0 then return all_sessions() end
local first_block = after and math.floor(after / block_size)
for _, block in ipairs(blocks_to_visit(demands)) do
  if not first_block or not before(block, first_block) then
    if visited == MAX_BLOCKS or cost >= MAX_COST then return finish() end
    visited = visited + 1
    local found, last, is_whole = candidates(block, demands, wanted - found_count)
    for _, serial in ipairs(found) do
      local id = call("ZRANGEBYSCORE", sessions, serial, serial)[1]
      if id and not add(string.format("%.0f", serial), id) then return finish() end
    end
    reply[2] = string.format("%.0f", last)
    if not is_whole then return finish() end
  end
end
return complete()
