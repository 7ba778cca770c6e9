-- verify_state: compare the state of a partition with the sessions that have the highest serials; raise it where asked.
-- KEYS[1] state       hash of the partition: last serial, last created_at
-- KEYS[2] sessions    zset of the partition, id -> serial
-- ARGV[1] prefix      of the partition's keys
-- ARGV[2] repair      0 or 1
-- returns 1 where the state is behind them, is not readable or is no hash, else 0
-- A state that is ahead is right: sessions may have been deleted.

local MAX = 9007199254740992 -- 2^53: beyond it numbers are not exact
local LOOKS = 100            -- sessions; some of the last may be damaged themselves

local state, sessions = KEYS[1], KEYS[2]
local prefix, repair = ARGV[1], ARGV[2] == "1"

local function valid(text)
  local number = text and string.match(text, "^%d+$") and tonumber(text)
  return number and number <= MAX and number or nil
end

local serial, created_at = 0, 0
local listed = redis.call("ZREVRANGEBYSCORE", sessions, MAX, 0, "WITHSCORES", "LIMIT", 0, LOOKS)
for i = 1, #listed, 2 do
  local stored = redis.pcall("HMGET", prefix .. "session:" .. listed[i], "serial", "created_at")
  local number = not stored.err and valid(stored[1])
  -- A serial that only the list has is not in use.
  if number and number == tonumber(listed[i + 1]) then
    serial, created_at = math.max(serial, number), math.max(created_at, valid(stored[2]) or 0)
  end
end

local is_hash = redis.call("TYPE", state).ok
is_hash = is_hash == "hash" or is_hash == "none"
local last = is_hash and redis.call("HMGET", state, "serial", "created_at") or {}
-- An empty partition needs no state; what is there must be readable all the same.
local function is_right(text, least)
  if not text then return least == 0 end
  local number = valid(text)
  return number and number >= least
end
if is_hash and is_right(last[1], serial) and is_right(last[2], created_at) then return 0 end

if repair then
  if not is_hash then redis.call("DEL", state) end
  redis.call("HSET", state, "serial", string.format("%.0f", math.max(serial, valid(last[1]) or 0)),
             "created_at", string.format("%.0f", math.max(created_at, valid(last[2]) or 0)))
end
return 1
