-- verify_set: compare one index set with the sessions whose serials it contains; optionally repair it.
-- KEYS[1] sessions    zset of the partition, id -> serial
-- ARGV[1] prefix      of the partition's keys
-- ARGV[2] block_size  serials per block
-- ARGV[3] project_id  of the request; the partition's state must name it
-- ARGV[4] partitions  of the request, likewise
-- ARGV[5] block       of the set
-- ARGV[6] term        of the set
-- ARGV[7] repair      0 or 1
-- ARGV[8] serials     members that may be wrong
-- returns {finding, serial, finding, serial, …}; with repair, an empty list if the partition has another owner
-- Findings: stale (no session has the serial, it lacks the term, or the serial lies in another block), listed (the block is
-- listed but the set is gone).
-- include: ownership
-- include: index

local sessions = KEYS[1]
local prefix, block_size, block, term, repair = ARGV[1], tonumber(ARGV[2]), ARGV[5], ARGV[6], ARGV[7] == "1"
local set, blocks = prefix .. "index:" .. block .. ":" .. term, prefix .. "blocks:" .. term

local function has_term(id)
  local stored = redis.pcall("HMGET", prefix .. "session:" .. id, "terms", "user")
  if stored.err then return false end
  if stored[2] and term == "@user=" .. stored[2] then return true end
  for _, stored_term in ipairs(all_terms(stored[1] or "{}")) do
    if stored_term == term then return true end
  end
  return false
end

-- Whether a session with this serial and the term lies in this block; false if `serial` is not a serial.
local function belongs(serial)
  local number = tonumber(serial)
  if not number or string.format("%.0f", number) ~= serial then return false end
  if string.format("%.0f", math.floor(number / block_size)) ~= block then return false end
  for _, id in ipairs(redis.call("ZRANGEBYSCORE", sessions, serial, serial)) do
    if has_term(id) then return true end
  end
  return false
end

if repair and partition_owner_error(prefix .. "state", ARGV[3], ARGV[4]) then return {} end
if repair then check_reach(prefix) end
local reply = {}
for i = 8, #ARGV do
  local serial = ARGV[i]
  if redis.call("SISMEMBER", set, serial) == 1 and not belongs(serial) then
    reply[#reply + 1], reply[#reply + 2] = "stale", serial
    if repair then redis.call("SREM", set, serial) end
  end
end
if redis.call("EXISTS", set) == 0 and redis.call("SISMEMBER", blocks, block) == 1 then
  -- If this call emptied the set, its stale members are findings already.
  if #reply == 0 then reply = { "listed", "" } end
  if repair then redis.call("SREM", blocks, block) end
end
return reply
