-- verify_session: compare a session's stored fields and index members with its configs; optionally repair them.
-- KEYS[1] session     hash of the session
-- KEYS[2] sessions    zset of the partition, id -> serial
-- KEYS[3] state       hash of the partition: last serial
-- ARGV[1] prefix      of the partition's keys
-- ARGV[2] block_size  serials per block
-- ARGV[3] project_id  of the request; the partition's state must name it
-- ARGV[4] partitions  of the request, likewise
-- ARGV[5] session_id  of the session
-- ARGV[6] read_configs  the configs that the caller read, "" if there was no session
-- ARGV[7] read_user   the user field that the caller read, or ""
-- ARGV[8] configs     the expected stored form of the configs
-- ARGV[9] terms       the expected stored form of the terms
-- ARGV[10] repair      0 or 1
-- ARGV[11] suspects    terms whose sets may contain the session wrongly
-- returns {"changed"} if the session has changed since it was read or, with repair, the partition has another owner;
--         else {"compared", finding, term, finding, term, …}
-- Findings: ghost, expiry, shared, form, terms, serial (with the term ""), missing, unlisted, stale.
-- include: ownership
-- include: commit
-- include: renumber

local session, sessions, state = KEYS[1], KEYS[2], KEYS[3]
local prefix, block_size, id, read_configs, read_user = ARGV[1], tonumber(ARGV[2]), ARGV[5], ARGV[6], ARGV[7]
local configs, terms, repair = ARGV[8], ARGV[9], ARGV[10] == "1"

if repair and partition_owner_error(state, ARGV[3], ARGV[4]) then return { "changed" } end
local stored = redis.call("HMGET", session, "configs", "terms", "user", "serial", "revision", "updated_at", "expires_at")
if (stored[1] or "") ~= read_configs or (stored[3] or "") ~= read_user then return { "changed" } end

local reply = { "compared" }
local function report(finding, term)
  reply[#reply + 1], reply[#reply + 2] = finding, term
end

local expiring = prefix .. "expiring"
local expires_at = tonumber(stored[1] and stored[7])
if tonumber(redis.call("ZSCORE", expiring, id)) ~= expires_at then report("expiry", "") end
if not stored[1] then
  if redis.call("ZSCORE", sessions, id) then report("ghost", "") end
  if repair then
    check_reach(prefix)
    redis.call("ZREM", sessions, id)
    redis.call("ZREM", expiring, id)
  end
  return reply
end

if #sharing(sessions, prefix, id, stored[4]) > 0 then
  report("shared", "")
  -- Index members cannot be attributed to one session until the other has a new serial.
  if not repair then return reply end
  local last = redis.call("ZREVRANGEBYSCORE", sessions, 9007199254740992, 0, "WITHSCORES", "LIMIT", 0, 1)[2]
  local new = integer(math.max(tonumber(redis.call("HGET", state, "serial")) or 0, tonumber(last) or 0) + 1)
  redis.call("HSET", state, "serial", new)
  renumber(sessions, prefix, block_size, id, stored[4], new)
  stored[4] = new
end
local serial = tonumber(stored[4])
local block = integer(math.floor(serial / block_size))

if stored[1] ~= configs then report("form", "") end
if stored[2] ~= terms then report("terms", "") end
local listed_serial = redis.call("ZSCORE", sessions, id)
if tonumber(listed_serial) ~= serial then report("serial", "") end

local required, expected = all_terms(terms), {}
if read_user ~= "" then required[#required + 1] = "@user=" .. read_user end
local unlisted = {}
for _, term in ipairs(required) do
  expected[term] = true
  if redis.call("SISMEMBER", prefix .. "index:" .. block .. ":" .. term, serial) == 0 then report("missing", term) end
  if redis.call("SISMEMBER", prefix .. "blocks:" .. term, block) == 0 then
    report("unlisted", term)
    unlisted[#unlisted + 1] = term
  end
end

local suspects, stale = all_terms(stored[2] or "{}"), {}
for i = 11, #ARGV do suspects[#suspects + 1] = ARGV[i] end
for _, term in ipairs(suspects) do
  if not expected[term] then
    expected[term] = true
    if redis.call("SISMEMBER", prefix .. "index:" .. block .. ":" .. term, serial) == 1 then
      report("stale", term)
      stale[#stale + 1] = term
    end
  end
end

if repair and #reply > 1 then
  if stored[1] ~= configs then
    commit({
      operation = "repair", session = session, prefix = prefix, block_size = block_size, serial = serial,
      revision = tonumber(stored[5]) or 0, not_before = tonumber(stored[6]) or 0,
      fields = { "configs", configs, "terms", terms }, size = #configs, size_before = #stored[1], removed = stale, added = required,
    })
  else
    check_reach(prefix)
    redis.call("HSET", session, "terms", terms)
    update_index(prefix, block_size, serial, stale, required)
  end
  redis.call("ZADD", sessions, integer(serial), id)
  if expires_at then redis.call("ZADD", expiring, integer(expires_at), id) else redis.call("ZREM", expiring, id) end
  for _, term in ipairs(unlisted) do redis.call("SADD", prefix .. "blocks:" .. term, block) end
end
return reply
