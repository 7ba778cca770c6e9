-- find_candidates: read the next sessions, in order of their serials, that have all required terms. Read-only.
-- KEYS[1] sessions    zset of the partition, id -> serial
-- ARGV[1] prefix      of the partition's keys
-- ARGV[2] block_size  serials per block
-- ARGV[3] after       serial to continue after, or "" to start
-- ARGV[4] descending  0 or 1
-- ARGV[5] limit       candidates to return at most
-- ARGV[6] max_bytes   configs of all candidates together at most; the first candidate always fits
-- ARGV[7] required_terms  pairs of term and the overflow term that may stand in for it ("" for none); without any: all sessions
-- returns {1 if there may be more, else 0, serial to continue after, cost, TIME, session, session, …}
--         with the cost in members of sets that take about as long to intersect,
--         and each session as {the fields of its hash in the order of FIELDS, its serial, its id}
--
-- The walk visits block after block, from `after`. In the first it counts the terms' sets. If all are dense, SMISMEMBER probes
-- windows of consecutive serials, which fills a page quickly; else SINTER intersects them. It also intersects the sets of the
-- blocks that follow, and counts only the first term's there, as long as that is about as small. Once a block has no session with
-- all terms, one SINTER of the terms' `blocks:` sets gives the blocks in which all of them occur, and it skips the others.
-- A call examines a bounded number of members and returns where it stopped.
-- include: batches

local FIELDS = {
  "configs", "revision", "user", "created_at", "updated_at", "disable_task_tracking", "serial", "expires_at",
}
local MAX_TERMS = 8        -- the rarest; each candidate is checked in full, so fewer terms only mean more candidates
local MAX_STAND_INS = 2    -- probes for terms with stand-ins, likewise: each takes time for every member left
local MAX_COST = 40000     -- members of intersected sets, roughly 0.02 µs each; a call ends here, or with its first block
local BLOCK_COST = 100     -- of a block, in such members
local SET_COST = 40        -- of counting a set
local PROBE_COST = 15      -- of a probe
local RESULT_COST = 14     -- of a member in the reply to SINTER or SUNION
local UNCOUNTED_MIN = 64   -- so small a set needs no new plan
local WINDOW_MIN, WINDOW_MAX = 8, 512

local sessions = KEYS[1]
local prefix, block_size, after, descending = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == "1"
local limit, max_bytes = tonumber(ARGV[5]), tonumber(ARGV[6])
local step = descending and -1 or 1
local call = redis.call
local cost = 0  -- of this call so far

local function before(a, b)
  if descending then return a > b end
  return a < b
end

local function block_of(serial)
  return math.floor(serial / block_size)
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
  cost = cost + #list * PROBE_COST * (other and 2 or 1)
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

-- The required terms to search by, each {term = …, overflow = the term that may stand in for it, or nil}. They also name the
-- sets to read next: {key, key of the set that may stand in for it, or nil}.
local required_terms = {}
local can_overflow = false

-- Lets the required terms name the sets whose keys start with `start`.
local function name_sets(start)
  for i = 1, #required_terms do
    local required = required_terms[i]
    required[1], required[2] = start .. required.term, required.overflow and start .. required.overflow
  end
end

-- Counts the named sets and sorts the terms by it, smallest first. Returns false if a term has none.
local function count_sets()
  for _, required in ipairs(required_terms) do
    required.count, cost = call("SCARD", required[1]), cost + SET_COST
    if required[2] then
      cost = cost + SET_COST
      local overflow_count = call("SCARD", required[2])
      required.count = required.count + overflow_count
      if overflow_count == 0 then required[2] = nil end
    end
    if required.count == 0 then return false end
  end
  table.sort(required_terms, function(a, b) return a.count < b.count end)
  return true
end

-- Reads the required terms, of many those that occur in the fewest blocks. Returns false if one of them occurs nowhere.
local function read_required_terms()
  for i = 7, #ARGV, 2 do
    local required = { term = ARGV[i], overflow = ARGV[i + 1] }
    if required.overflow == "" or call("EXISTS", prefix .. "blocks:" .. required.overflow) == 0 then required.overflow = nil end
    can_overflow = can_overflow or required.overflow ~= nil
    required_terms[#required_terms + 1] = required
  end
  if #required_terms <= MAX_TERMS then return true end
  name_sets(prefix .. "blocks:")
  local is_possible = count_sets()
  cost = 0  -- free of charge, or a call with many terms would visit no block; the filter bounds their number
  if not is_possible then return false end
  for i = #required_terms, MAX_TERMS + 1, -1 do required_terms[i] = nil end
  return true
end

-- Members common to all named sets, in scan order.
local function intersect()
  local plain, mixed = {}, {}
  for i = 1, #required_terms do
    local set = required_terms[i]
    if set[2] then mixed[#mixed + 1] = set else plain[#plain + 1] = set[1] end
  end
  local list
  if #plain > 0 then
    list = sorted_numbers(call("SINTER", unpack(plain)))
  else
    list = sorted_numbers(call("SUNION", mixed[1][1], mixed[1][2]))
    table.remove(mixed, 1)
  end
  cost = cost + #list * RESULT_COST
  for i = 1, math.min(#mixed, MAX_STAND_INS) do list = members_of_either(list, mixed[i][1], mixed[i][2]) end
  return list
end

-- What `intersect` costs at most, besides its reply, if the smallest of the named sets has so many members.
local function most_cost_of_intersection(smallest)
  local probes = 0
  for i = 1, #required_terms do
    if required_terms[i][2] then probes = probes + 2 end
  end
  return smallest * (#required_terms + PROBE_COST * math.min(probes, 2 * MAX_STAND_INS))
end

-- No serial is higher: the last block is rarely full. A manual edit may have left a fraction.
local newest = math.floor(tonumber(call("ZREVRANGE", sessions, 0, 0, "WITHSCORES")[2]) or 0)

-- Probes consecutive serials of a dense block, from `from` to `to`, until it has enough or the call has cost enough. Returns the
-- serials that are in all sets, and the last serial it probed if that is not `to`. Returns nil if it has found none for
-- `max_cost`: the terms are not independent, so SINTER takes less.
local function probe(from, to, needed, share, max_cost)
  local serials, next_serial, cost_before = {}, from, cost
  repeat
    local window = math.max(WINDOW_MIN, math.min(WINDOW_MAX, math.ceil((needed - #serials) / share)))
    local stop = next_serial + step * (window - 1)
    if before(to, stop) then stop = to end
    local list = {}
    for serial = next_serial, stop, step do list[#list + 1] = serial end
    for _, set in ipairs(required_terms) do list = members_of_either(list, set[1], set[2]) end
    for _, serial in ipairs(list) do serials[#serials + 1] = serial end
    next_serial = stop + step
    if #serials == 0 and cost - cost_before > max_cost then return nil end
  until before(to, next_serial) or #serials >= needed or cost >= MAX_COST
  return serials, before(next_serial - step, to) and next_serial - step or nil
end

-- Most members of the first term's set in a block that is intersected without counting the other sets; nil to count them all.
local uncounted_max

-- Plans the search of a block of so many serials, whose sets are named. Returns the most members that the smallest set can have,
-- 0 if a term does not occur; and if windows are to be probed, the share of serials in all sets if terms are independent.
local function plan(serials, needed)
  local smallest = uncounted_max and call("SCARD", required_terms[1][1])
  if smallest and smallest <= uncounted_max then return smallest end
  if not count_sets() then return 0 end
  local share = 1
  for _, required in ipairs(required_terms) do share = share * math.min(1, required.count / serials) end
  smallest = required_terms[1].count
  if needed / share * PROBE_COST < smallest * #required_terms + share * serials * RESULT_COST then return smallest, share end
  if not can_overflow then uncounted_max = math.max(2 * smallest, UNCOUNTED_MIN) end
  return smallest
end

-- The blocks in which all terms occur, in scan order; nil until a visited block had no session with all of them.
local listed_blocks

-- Free of charge: otherwise a call that lists many blocks would visit none of them.
local function list_blocks()
  local cost_before = cost
  name_sets(prefix .. "blocks:")
  listed_blocks = intersect()
  cost = cost_before
end

-- The block to visit after `block`; nil if no listed one follows.
local position = 0
local function next_block(block)
  if not listed_blocks then return block + step end
  repeat
    position = position + 1
    local listed = listed_blocks[position]
    -- A manual edit may have left a fraction, which is no block.
  until not listed or (before(block, listed) and listed % 1 == 0)
  return listed_blocks[position]
end

-- The serial before the first one of `block`, in scan order.
local function serial_before(block)
  return descending and (block + 1) * block_size or block * block_size - 1
end

-- Serials of `block` beyond `after` that are in all sets, and the last serial examined if that does not end the block; nil if
-- the block costs more than is left for this call.
local function candidates(block, needed)
  local is_first = cost == 0
  cost = cost + BLOCK_COST
  local low, high = block * block_size, math.min((block + 1) * block_size - 1, newest)
  local from, to = low, high
  if descending then from, to = high, low end
  if after and not before(after, from) then from = after + step end
  if before(to, from) then return {} end
  name_sets(prefix .. "index:" .. string.format("%.0f", block) .. ":")
  local smallest, share = plan(high - low + 1, needed)
  if smallest == 0 then
    if not listed_blocks then list_blocks() end
    return {}
  end
  if share then
    local serials, last_probed = probe(from, to, needed, share, smallest * #required_terms)
    if serials then return serials, last_probed end
  end
  if not is_first and cost + most_cost_of_intersection(smallest) > MAX_COST then return nil end
  cost = cost + smallest * #required_terms
  local common, serials = intersect(), {}
  if #common == 0 and not listed_blocks then list_blocks() end
  for _, serial in ipairs(common) do
    -- A manual edit may have left a fraction, which is no serial.
    if not before(serial, from) and serial % 1 == 0 then serials[#serials + 1] = serial end
  end
  return serials
end

local reply = { 1, "", 0, call("TIME") }
local candidate_count, bytes = 0, 0
local examined = ARGV[3]  -- the serial to continue after, as text or as a whole number

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
  examined = serial
  return candidate_count < limit
end

-- Adds the sessions with these serials. Returns false if the reply is full.
local function add_all(serials)
  for i = 1, #serials do
    local serial = string.format("%.0f", serials[i])
    local id = call("ZRANGEBYSCORE", sessions, serial, serial, "LIMIT", 0, 1)[1]
    if id and not add(serial, id) then return false end
  end
  return true
end

local function finish()
  reply[2] = type(examined) == "number" and string.format("%.0f", examined) or examined
  reply[3] = cost
  return reply
end

-- Ends a call that has examined all sessions. Sessions created later have higher serials.
local function complete()
  reply[1], examined = 0, descending and 0 or math.max(newest, after or 0)
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

local function walk()
  local block, last_block = 0, block_of(newest)
  if descending then block, last_block = last_block, block end
  if after and before(block, block_of(after + step)) then block = block_of(after + step) end
  while block and not before(last_block, block) do
    if cost >= MAX_COST then return finish() end
    local serials, last_probed = candidates(block, limit - candidate_count)
    if not serials or not add_all(serials) then return finish() end
    if last_probed then
      examined = last_probed
      return finish()
    end
    block = next_block(block)
    if block then examined = serial_before(block) end
  end
  return complete()
end

if #ARGV < 7 then return all_sessions() end
return read_required_terms() and walk() or complete()
