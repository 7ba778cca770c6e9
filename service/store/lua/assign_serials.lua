-- assign_serials: give the next sessions of a partition their serials, in order of creation, and index them.
-- KEYS[1] order       zset of the partition, id -> created_at: the sessions without a serial
-- KEYS[2] sessions    zset of the partition, id -> serial
-- KEYS[3] state       hash of the partition: project id, partitions, last serial, last created_at
-- ARGV[1] prefix      of the partition's keys
-- ARGV[2] block_size  serials per block
-- ARGV[3] project_id  of the request; the partition's state must name it
-- ARGV[4] partitions  of the request, likewise
-- returns how many ids it took from `order`, 0 if it was empty; or an error of ownership.lua
-- include: ownership
-- include: ttl

-- Limits of one call, because Redis runs nothing else meanwhile.
local MAX_SESSIONS, MAX_TERMS = 16, 200

local order, sessions, state = KEYS[1], KEYS[2], KEYS[3]
local prefix, block_size = ARGV[1], tonumber(ARGV[2])

local last = redis.call("HMGET", state, "serial", "created_at", "project_id", "partitions")
local error_reply = owner_error(last[3], last[4], ARGV[3], ARGV[4])
if error_reply then return error_reply end

local serial, newest = tonumber(last[1]) or 0, tonumber(last[2]) or 0
local flat = redis.call("ZRANGE", order, 0, MAX_SESSIONS - 1, "WITHSCORES")
local numbered, count, term_count = {}, 0, 0
for i = 1, #flat, 2 do
  if term_count >= MAX_TERMS then break end
  local id, key = flat[i], prefix .. "session:" .. flat[i]
  if redis.call("EXISTS", key) == 1 then
    local stored = redis.call("HMGET", key, "terms", "user", "expires_at")
    local terms = all_terms(stored[1] or "{}")
    if stored[2] then terms[#terms + 1] = "@user=" .. stored[2] end
    serial, term_count = serial + 1, term_count + #terms
    local expires_at = stored[3] and parse_expires_at(stored[3]) and stored[3] or nil
    numbered[#numbered + 1] = { id = id, key = key, serial = serial, expires_at = expires_at, terms = terms }
  end
  count, newest = count + 1, math.max(newest, tonumber(flat[i + 1]))
end
if count == 0 then return 0 end

check_reach(prefix)
for _, session in ipairs(numbered) do
  redis.call("HSET", session.key, "serial", integer(session.serial))
  redis.call("ZADD", sessions, integer(session.serial), session.id)
  if session.expires_at then redis.call("ZADD", prefix .. "expiring", session.expires_at, session.id) end
  update_index(prefix, block_size, session.serial, {}, session.terms)
end
redis.call("HSET", state, "serial", integer(serial), "created_at", integer(newest))
redis.call("ZREMRANGEBYRANK", order, 0, count - 1)
return count
