-- verify_state: compare the state of a partition with its project, the layout and the sessions that have the highest
-- serials; optionally repair it.
-- KEYS[1] state       hash of the partition: project id, partitions, last serial, last created_at
-- KEYS[2] sessions    zset of the partition, id -> serial
-- ARGV[1] prefix      of the partition's keys
-- ARGV[2] project_id  that the state must name
-- ARGV[3] partitions  that the state must name
-- ARGV[4] repair      0 or 1
-- returns the findings: owner (the project id or the partitions differ or are missing), state (it is behind the sessions,
-- cannot be read, or is not a hash)
-- A state ahead of the sessions is correct: sessions may have been deleted.

local MAX = 9007199254740992 -- 2^53: beyond it numbers are not exact
local MAX_SESSIONS = 100     -- to examine: the last ones may be damaged themselves

local state, sessions = KEYS[1], KEYS[2]
local prefix, project_id, partitions, repair = ARGV[1], ARGV[2], ARGV[3], ARGV[4] == "1"

local function valid(text)
  local number = text and string.match(text, "^%d+$") and tonumber(text)
  return number and number <= MAX and number or nil
end

local serial, created_at = 0, 0
local flat = redis.call("ZREVRANGEBYSCORE", sessions, MAX, 0, "WITHSCORES", "LIMIT", 0, MAX_SESSIONS)
for i = 1, #flat, 2 do
  local stored = redis.pcall("HMGET", prefix .. "session:" .. flat[i], "serial", "created_at")
  local number = not stored.err and valid(stored[1])
  -- A serial that only the zset has is not in use.
  if number and number == tonumber(flat[i + 1]) then
    serial, created_at = math.max(serial, number), math.max(created_at, valid(stored[2]) or 0)
  end
end

local is_hash = redis.call("TYPE", state).ok
is_hash = is_hash == "hash" or is_hash == "none"
local last = is_hash and redis.call("HMGET", state, "serial", "created_at", "project_id", "partitions") or {}
-- An empty partition needs no state; a state that exists must be readable.
local function is_at_least(text, minimum)
  if not text then return minimum == 0 end
  local number = valid(text)
  return number and number >= minimum
end
local reply = {}
if last[3] ~= project_id or last[4] ~= partitions then reply[1] = "owner" end
local is_current = is_hash and is_at_least(last[1], serial) and is_at_least(last[2], created_at)
if not is_current then reply[#reply + 1] = "state" end

if repair then
  if not is_hash then redis.call("DEL", state) end
  if not is_current then
    redis.call("HSET", state, "serial", string.format("%.0f", math.max(serial, valid(last[1]) or 0)),
               "created_at", string.format("%.0f", math.max(created_at, valid(last[2]) or 0)))
  end
  if reply[1] == "owner" then redis.call("HSET", state, "project_id", project_id, "partitions", partitions) end
end
return reply
