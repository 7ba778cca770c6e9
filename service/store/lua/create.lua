-- create: store a new session and index it, or return the session that already has the id.
-- KEYS[1] session     hash of the session
-- KEYS[2] sessions    zset of the partition, id -> serial
-- KEYS[3] state       hash of the partition: project id, partitions, last serial, last created_at, default TTL
-- ARGV[1] prefix      of the partition's keys
-- ARGV[2] block_size  serials per block
-- ARGV[3] project_id  of the request; the partition's state must name it
-- ARGV[4] partitions  of the request, likewise
-- ARGV[5] session_id  of the session
-- ARGV[6] configs     stored form, or null
-- ARGV[7] terms       stored form
-- ARGV[8] user        identifier as a JSON string, or ""
-- ARGV[9] disable_task_tracking  0 or 1
-- ARGV[10] ttl         seconds, 0 for no expiry, "" for the project's default
-- ARGV[11] conditions  of the request (see precondition.lua), for a session that already has the id
-- ARGV[12] max_sessions  maximum for the partition, 0 for no limit; expired sessions do not count
-- returns {"created", revision, created_at, updated_at, serial, expires_at ("" for none)}
--       | {"exists", configs, revision, user, created_at, updated_at, disable_task_tracking, serial, expires_at}
--       | {"precondition_failed", header} | {"too_many_sessions"} | an error of ownership.lua
-- An expired session with the id is removed first, as a separate, complete step.
-- include: ownership
-- include: ttl
-- include: removal
-- include: precondition

local session, sessions, state = KEYS[1], KEYS[2], KEYS[3]
local prefix, block_size, id, configs, terms, user = ARGV[1], tonumber(ARGV[2]), ARGV[5], ARGV[6], ARGV[7], ARGV[8]

local last = redis.call("HMGET", state, "serial", "created_at", "session_ttl", "project_id", "partitions")
local error_reply = owner_error(last[4], last[5], ARGV[3], ARGV[4])
if error_reply then return error_reply end

if redis.call("EXISTS", session) == 1 then
  local stored = redis.call("HMGET", session, "configs", "revision", "user", "created_at", "updated_at",
                            "disable_task_tracking", "serial", "expires_at", "terms")
  if not stored[1] or not is_expired(stored[8]) then
    return condition_failure(ARGV[11], stored[4] or "", stored[2] or "") or { "exists", unpack(stored, 1, 8) }
  end
  remove({
    operation = "expire", session = session, sessions = sessions, prefix = prefix, block_size = block_size, id = id,
    terms = stored[9], revision = stored[2], serial = stored[7], user = stored[3], expires_at = stored[8],
  })
end

local max_sessions = tonumber(ARGV[12])
if max_sessions > 0 then
  local count = redis.call("ZCARD", sessions)
  if count >= max_sessions and count - redis.call("ZCOUNT", prefix .. "expiring", "-inf", integer(now())) >= max_sessions then
    return { "too_many_sessions" }
  end
end

-- created_at always grows, even if the clock steps back: there are no ties, and no ETag repeats.
local serial = (tonumber(last[1]) or 0) + 1
local created = math.max(now(), (tonumber(last[2]) or 0) + 1)
local created_at = integer(created)
local expires_at = expires_at_for(tonumber(ARGV[10]) or tonumber(last[3]) or 0)

local fields = { "configs", configs, "terms", terms, "serial", integer(serial), "created_at", created_at }
if ARGV[9] == "1" then fields[#fields + 1], fields[#fields + 2] = "disable_task_tracking", "1" end
local added = all_terms(terms)
if user ~= "" then
  fields[#fields + 1], fields[#fields + 2] = "user", user
  added[#added + 1] = "@user=" .. user
end

local revision, updated_at = commit({
  operation = "create", session = session, prefix = prefix, block_size = block_size, serial = serial,
  revision = 0, not_before = created, fields = fields,
  expires_at = expires_at ~= "" and expires_at or nil,
  removed = {}, added = added,
})
redis.call("HSET", state, "serial", integer(serial), "created_at", created_at)
redis.call("ZADD", sessions, integer(serial), id)
return { "created", revision, created_at, updated_at, integer(serial), expires_at }
