-- import_sessions: create sessions as they were in another store, in the order of creation; each is a separate, complete step.
-- KEYS[1] sessions    zset of the partition, id -> serial
-- KEYS[2] state       hash of the partition: project id, partitions, last serial, last created_at
-- ARGV[1] prefix      of the partition's keys
-- ARGV[2] block_size  serials per block
-- ARGV[3] project_id  of the import; the partition's state must name it
-- ARGV[4] partitions  of the import, likewise
-- ARGV[5] on_conflict  what to do if an id belongs to another session, or to an earlier state of this one: fail, skip or replace
-- ARGV[6] not_before  last created_at in the other store: later sessions are created after it
-- ARGV[7] max_sessions  maximum for the partition, 0 for no limit; expired sessions do not count
-- ARGV[8] imported    for each session: id, revision, created_at, updated_at ("" for now), expires_at ("" for none),
--                     disable_task_tracking (0 or 1), user (identifier as a JSON string, or ""), configs and terms (stored forms);
--                     the caller limits their number
-- returns a status for each session, in order: created, replaced, present (this state of it, or a later one), skipped, expired (by
--         now: left out), older (than another session: left out, as its serial would not be in the order of creation). The list ends
--         with the first that is conflict or full, or older unless on_conflict is skip
--       | an error of ownership.lua
-- include: ownership
-- include: ttl
-- include: removal

local sessions, state = KEYS[1], KEYS[2]
local prefix, block_size, on_conflict = ARGV[1], tonumber(ARGV[2]), ARGV[5]

local last = redis.call("HMGET", state, "serial", "created_at", "project_id", "partitions")
local error_reply = owner_error(last[3], last[4], ARGV[3], ARGV[4])
if error_reply then return error_reply end
local last_serial, last_created = tonumber(last[1]) or 0, tonumber(last[2]) or 0

local function record(serial, created)
  last_serial, last_created = math.max(last_serial, serial), math.max(last_created, created)
  redis.call("HSET", state, "serial", integer(last_serial), "created_at", integer(last_created))
end

-- Id and created_at of the session with the highest serial; nil until they are read, and after a deletion.
local newest_id, newest_created

-- Whether a session that is created at `created` comes after the one with the highest serial. Sessions that were created in several
-- partitions at the same moment are in the order of their ids.
local function is_newest(created, id)
  if not newest_id then
    newest_id = redis.call("ZREVRANGE", sessions, 0, 0)[1]
    if not newest_id then return true end
    newest_created = tonumber(redis.call("HGET", prefix .. "session:" .. newest_id, "created_at")) or last_created
  end
  return created > newest_created or (created == newest_created and id > newest_id)
end

local function read(key)
  local stored = redis.call("HMGET", key, "configs", "revision", "created_at", "expires_at", "disable_task_tracking", "user", "terms",
                            "serial")
  if not stored[1] then return nil end
  return {
    configs = stored[1], revision = stored[2], created_at = stored[3], expires_at = stored[4], tracking = stored[5],
    user = stored[6], terms = stored[7], serial = stored[8],
  }
end

local function delete(session, stored, operation)
  newest_id = nil
  remove({
    operation = operation, session = session.key, sessions = sessions, prefix = prefix, block_size = block_size, id = session.id,
    terms = stored.terms, revision = stored.revision, serial = stored.serial, user = stored.user, expires_at = stored.expires_at,
  })
end

local function equals(session, stored)
  return session.configs == stored.configs and session.user == (stored.user or "") and session.expires_at == (stored.expires_at or "")
    and session.tracking == (stored.tracking or "0")
end

-- What to do about the session that has the id: a status, or nil to replace it.
local function resolve(session, stored)
  local is_same = session.created_at == "" or session.created_at == stored.created_at
  local is_current = is_same and (tonumber(stored.revision) or 0) >= session.revision
  if is_current and (on_conflict ~= "replace" or equals(session, stored)) then return "present" end
  if on_conflict == "fail" then return "conflict" end
  if on_conflict == "skip" then return "skipped" end
end

local function create(session, serial, created)
  local fields = { "configs", session.configs, "terms", session.terms, "serial", integer(serial), "created_at", integer(created) }
  if session.tracking == "1" then fields[#fields + 1], fields[#fields + 2] = "disable_task_tracking", "1" end
  local added = all_terms(session.terms)
  if session.user ~= "" then
    fields[#fields + 1], fields[#fields + 2] = "user", session.user
    added[#added + 1] = "@user=" .. session.user
  end
  commit({
    operation = "create", session = session.key, prefix = prefix, block_size = block_size, serial = serial,
    revision = session.revision - 1, not_before = created,
    updated_at = session.updated_at ~= "" and session.updated_at or nil, fields = fields,
    expires_at = session.expires_at ~= "" and session.expires_at or nil,
    removed = {}, added = added,
  })
  record(serial, created)
  redis.call("ZADD", sessions, integer(serial), session.id)
end

local max_sessions = tonumber(ARGV[7])

local function is_full()
  if max_sessions == 0 then return false end
  local count = redis.call("ZCARD", sessions)
  return count >= max_sessions and count - redis.call("ZCOUNT", prefix .. "expiring", "-inf", integer(now())) >= max_sessions
end

local function import(session)
  if is_expired(session.expires_at) then return "expired" end
  local stored = read(session.key)
  if stored and is_expired(stored.expires_at) then
    delete(session, stored, "expire")
    stored = nil
  end
  local status = stored and resolve(session, stored)
  if status then return status end

  local created = tonumber(session.created_at) or math.max(now(), last_created + 1)
  local keeps_serial = stored and stored.created_at == session.created_at and tonumber(stored.serial)
  if not keeps_serial and not is_newest(created, session.id) then return "older" end
  if not stored and is_full() then return "full" end
  if keeps_serial then
    -- No revision of a session repeats, or its ETag would.
    session.revision = math.max(session.revision, tonumber(stored.revision) + 1)
  end
  if stored then delete(session, stored, "delete") end
  create(session, keeps_serial or last_serial + 1, created)
  if not keeps_serial then newest_id, newest_created = session.id, created end
  return stored and "replaced" or "created"
end

local not_before = tonumber(ARGV[6])
if not_before > last_created then record(last_serial, not_before) end
local reply = {}
for i = 8, #ARGV, 9 do
  local status = import({
    id = ARGV[i], key = prefix .. "session:" .. ARGV[i], revision = tonumber(ARGV[i + 1]), created_at = ARGV[i + 2],
    updated_at = ARGV[i + 3], expires_at = ARGV[i + 4], tracking = ARGV[i + 5], user = ARGV[i + 6], configs = ARGV[i + 7],
    terms = ARGV[i + 8],
  })
  reply[#reply + 1] = status
  if status == "conflict" or status == "full" or (status == "older" and on_conflict ~= "skip") then break end
end
return reply
