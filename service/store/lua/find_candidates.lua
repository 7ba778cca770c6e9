-- find_candidates: read the next sessions, in order of their serials, that have all required terms. Read-only.
-- KEYS[1] sessions    zset of the partition, id -> serial
-- ARGV[1] prefix      of the partition's keys
-- ARGV[2] block_size  serials per block
-- ARGV[3] after       serial to continue after, or "" to start
-- ARGV[4] descending  0 or 1
-- ARGV[5] limit       candidates to return at most
-- ARGV[6] max_bytes   configs of all candidates together at most; the first candidate always fits
-- ARGV[7] required_terms  pairs of term and the overflow term that may stand in for it ("" for none); without any: all sessions
-- returns {1 if there may be more, else 0, serial to continue after, members examined, TIME, session, session, …}
--         with each session as {the fields of its hash in the order of FIELDS, its serial, its id}
--
-- First one SINTER of the terms' `blocks:` sets gives the blocks in which all terms occur. Then it visits block after block, from
-- `after`. If all sets of a block are dense, SMISMEMBER probes windows of consecutive serials, which fills a page quickly; else it
-- intersects the block's sets. A call examines a bounded number of blocks and members and returns where it stopped.
-- include: batches

local FIELDS = {
  "configs", "revision", "user", "created_at", "updated_at", "disable_task_tracking", "serial", "expires_at",
}
local MAX_TERMS = 8   -- the rarest; each candidate is checked in full afterwards, so fewer terms only mean more candidates
local MAX_BLOCKS = 32
local MAX_COST = 12000  -- members examined, roughly 0.1 µs each
local PROBE_COST = 3    -- of one probe, in members of an intersection
local BLOCK_COST = 100  -- of one block, in members of an intersection
local WINDOW_MIN, WINDOW_MAX = 32, 512

local sessions = KEYS[1]
local prefix, block_size, after, descending = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == "1"
local limit, max_bytes = tonumber(ARGV[5]), tonumber(ARGV[6])
local call = redis.call

local function before(a, b)
  if descending then return a > b end
  return a < b
end

-- The members of a set reply as numbers, in scan order. A reply from integer sets is sorted already and needs at most a reversal.
local function sorted_numbers(members)
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

-- The members of `list` that are in the set `key`, or in `other` if given.
local function members_of_either(list, key, other)
  local present = {}
  each_batch(#list, BATCH, function(from, to)
    local first = call("SMISMEMBER", key, unpack(list, from, to))
    local second = other and call("SMISMEMBER", other, unpack(list, from, to))
    for i = from, to do
      local position = i - from + 1
      if first[position] == 1 or (second and second[position] == 1) then present[#present + 1] = list[i] end
    end
  end)
  return present
end

-- The required terms to search by: those that occur in the fewest blocks.
local function read_required_terms()
  local required_terms = {}
  for i = 7, #ARGV, 2 do
    local required = { term = ARGV[i], blocks = prefix .. "blocks:" .. ARGV[i] }
    local overflow = ARGV[i + 1]
    if overflow ~= "" and call("EXISTS", prefix .. "blocks:" .. overflow) == 1 then
      required.overflow, required.overflow_blocks = overflow, prefix .. "blocks:" .. overflow
    end
    required_terms[#required_terms + 1] = required
  end
  if #required_terms > MAX_TERMS then
    for _, required in ipairs(required_terms) do
      required.count = call("SCARD", required.blocks) + (required.overflow and call("SCARD", required.overflow_blocks) or 0)
    end
    table.sort(required_terms, function(a, b) return a.count < b.count end)
    for i = #required_terms, MAX_TERMS + 1, -1 do required_terms[i] = nil end
  end
  return required_terms
end

-- Members common to all `sets`, each {key} or {key, key that may stand in for it}, in scan order.
local function intersect(sets)
  local plain, mixed = {}, {}
  for _, set in ipairs(sets) do
    if set[2] then mixed[#mixed + 1] = set else plain[#plain + 1] = set[1] end
  end
  local list
  if #plain > 0 then
    list = sorted_numbers(call("SINTER", unpack(plain)))
  else
    list = sorted_numbers(call("SUNION", mixed[1][1], mixed[1][2]))
    table.remove(mixed, 1)
  end
  for _, set in ipairs(mixed) do list = members_of_either(list, set[1], set[2]) end
  return list
end

local function blocks_to_visit(required_terms)
  local sets = {}
  for i, required in ipairs(required_terms) do sets[i] = { required.blocks, required.overflow_blocks } end
  return intersect(sets)
end

-- The block's sets as `intersect` takes them, smallest first; the size of the smallest; and the share of the block's serials
-- expected in all sets if terms were independent. nil if a set without an overflow set is empty.
local function block_sets(block, serials, required_terms)
  local sets, share = {}, 1
  for i, required in ipairs(required_terms) do
    local key = prefix .. "index:" .. block .. ":" .. required.term
    local count, other = call("SCARD", key), nil
    if required.overflow then
      other = prefix .. "index:" .. block .. ":" .. required.overflow
      local overflow_count = call("SCARD", other)
      if overflow_count == 0 then other = nil end
      count = count + overflow_count
    end
    if count == 0 then return nil end
    sets[i] = { key, other, count = count }
    share = share * math.min(1, count / serials)
  end
  table.sort(sets, function(a, b) return a.count < b.count end)
  return sets, sets[1].count, share
end

local cost = 0
-- No serial is higher: the last block is rarely full.
local newest = tonumber(call("ZREVRANGE", sessions, 0, 0, "WITHSCORES")[2]) or 0

-- Probes consecutive serials of a dense block, from `from` to `to`, until it has enough or the call has cost enough. Returns the
-- serials that are in all sets, and the last serial it probed.
local function probe(sets, from, to, needed, share)
  local step = descending and -1 or 1
  local serials, next_serial = {}, from
  local window = math.max(WINDOW_MIN, math.min(WINDOW_MAX, math.ceil(needed / share)))
  while not before(to, next_serial) and #serials < needed and cost < MAX_COST do
    local stop = next_serial + step * (window - 1)
    if before(to, stop) then stop = to end
    local list = {}
    for serial = next_serial, stop, step do list[#list + 1] = serial end
    for _, set in ipairs(sets) do
      cost = cost + #list * PROBE_COST
      list = members_of_either(list, set[1], set[2])
    end
    for _, serial in ipairs(list) do serials[#serials + 1] = serial end
    next_serial = stop + step
  end
  return serials, next_serial - step
end

-- Serials of `block` beyond `after` that are in all sets, the last serial examined, and whether that ends the block.
local function candidates(block, required_terms, needed)
  local low, high = block * block_size, (block + 1) * block_size - 1
  local top = math.min(high, newest)
  local from, to = low, top
  if descending then from, to = top, low end
  if after and not before(after, from) then from = descending and after - 1 or after + 1 end
  if before(to, from) then return {}, descending and low or high, true end
  local sets, smallest, share = block_sets(string.format("%.0f", block), top - low + 1, required_terms)
  if not sets then return {}, to, true end
  if needed / share * PROBE_COST < smallest * #sets then
    local serials, last = probe(sets, from, to, needed, share)
    return serials, last, last == to
  end
  cost = cost + smallest * #sets
  local serials = {}
  for _, serial in ipairs(intersect(sets)) do
    if not before(serial, from) then serials[#serials + 1] = serial end
  end
  return serials, to, true
end

local reply = { 1, "", 0, call("TIME") }
local candidate_count, bytes, visited_blocks = 0, 0, 0

-- Adds a candidate to the reply, its serial as text. Returns false if it is the last one, or does not fit.
local function add(serial, id)
  local key = prefix .. "session:" .. id
  local stored = redis.pcall("HMGET", key, unpack(FIELDS))
  -- A key that is not a hash is not a session. Any other error fails the call: on a migrating slot, sessions would be missing.
  if stored.err and not string.find(stored.err, "WRONGTYPE", 1, true) then redis.call("HMGET", key, unpack(FIELDS)) end
  if not stored.err and stored[1] then
    bytes = bytes + #stored[1]
    if candidate_count > 0 and bytes > max_bytes then return false end
    candidate_count = candidate_count + 1
    stored[#FIELDS + 1], stored[#FIELDS + 2] = serial, id
    reply[candidate_count + 4] = stored
  end
  reply[2] = serial
  return candidate_count < limit
end

local function finish()
  reply[3] = cost + visited_blocks * BLOCK_COST
  return reply
end

-- Ends a call that has examined all sessions. Sessions created later have higher serials.
local function complete()
  reply[1], reply[2] = 0, descending and "0" or string.format("%.0f", math.max(newest, after or 0))
  return finish()
end

local function all_sessions()
  local from = after and "(" .. ARGV[3]
  local flat
  if descending then
    flat = call("ZREVRANGEBYSCORE", sessions, from or "+inf", "-inf", "WITHSCORES", "LIMIT", 0, limit)
  else
    flat = call("ZRANGEBYSCORE", sessions, from or "-inf", "+inf", "WITHSCORES", "LIMIT", 0, limit)
  end
  for i = 1, #flat, 2 do
    if not add(flat[i + 1], flat[i]) then return finish() end
  end
  return #flat < 2 * limit and complete() or finish()
end

local required_terms = read_required_terms()
if #required_terms == 0 then return all_sessions() end
local first_block = after and math.floor(after / block_size)
for _, block in ipairs(blocks_to_visit(required_terms)) do
  if not first_block or not before(block, first_block) then
    if visited_blocks == MAX_BLOCKS or cost >= MAX_COST then return finish() end
    visited_blocks = visited_blocks + 1
    local serials, last, is_whole = candidates(block, required_terms, limit - candidate_count)
    for _, serial in ipairs(serials) do
      local id = call("ZRANGEBYSCORE", sessions, serial, serial)[1]
      if id and not add(string.format("%.0f", serial), id) then return finish() end
    end
    reply[2] = string.format("%.0f", last)
    if not is_whole then return finish() end
  end
end
return complete()
