-- verify_session: compare a session with what its configs should have left in the store; repair it where asked.
-- KEYS[1] session     hash of the session
-- KEYS[2] sessions    zset of the partition, id -> serial
-- KEYS[3] state       hash of the partition: last serial
-- ARGV[1] prefix      of the partition's keys
-- ARGV[2] block_size  serials a block
-- ARGV[3] id          of the session
-- ARGV[4] seen        the configs that were read, "" where there was no session
-- ARGV[5] seen_user   the user field that was read, or ""
-- ARGV[6] configs     what the configs should be: their stored form
-- ARGV[7] terms       what the terms should be: their stored form
-- ARGV[8] repair      0 or 1
-- ARGV[9] suspects    terms whose sets may hold the session wrongly
-- returns {"changed"} where the session is not as it was read, else {"held", finding, term, finding, term, …}
-- Findings: ghost, lifetime, shared, form, terms, serial (with the term ""), missing, unlisted, stale.
-- include: commit
-- include: renumber

local session, sessions, state = KEYS[1], KEYS[2], KEYS[3]
local prefix, block_size, id, seen, seen_user = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]
local configs, terms, repair = ARGV[6], ARGV[7], ARGV[8] == "1"

local stored = redis.call("HMGET", session, "configs", "terms", "user", "serial", "revision", "updated_at", "expires_at")
if (stored[1] or "") ~= seen or (stored[3] or "") ~= seen_user then return { "changed" } end

local reply = { "held" }
local function found(finding, term)
  reply[#reply + 1], reply[#reply + 2] = finding, term
end

local expiring = prefix .. "expiring"
local expires_at = tonumber(stored[1] and stored[7])
if tonumber(redis.call("ZSCORE", expiring, id)) ~= expires_at then found("lifetime", "") end
if not stored[1] then
  if redis.call("ZSCORE", sessions, id) then found("ghost", "") end
  if repair then
    check_reach(prefix)
    redis.call("ZREM", sessions, id)
    redis.call("ZREM", expiring, id)
  end
  return reply
end

if #sharing(sessions, prefix, id, stored[4]) > 0 then
  found("shared", "")
  -- Which index members are whose cannot be said until one of them has another serial.
  if not repair then return reply end
  local last = redis.call("ZREVRANGEBYSCORE", sessions, 9007199254740992, 0, "WITHSCORES", "LIMIT", 0, 1)[2]
  local new = integer(math.max(tonumber(redis.call("HGET", state, "serial")) or 0, tonumber(last) or 0) + 1)
  redis.call("HSET", state, "serial", new)
  renumber(sessions, prefix, block_size, id, stored[4], new)
  stored[4] = new
end
local serial = tonumber(stored[4])
local block = integer(math.floor(serial / block_size))

if stored[1] ~= configs then found("form", "") end
if stored[2] ~= terms then found("terms", "") end
local listed_serial = redis.call("ZSCORE", sessions, id)
if tonumber(listed_serial) ~= serial then found("serial", "") end

local right, expected = all_terms(terms), {}
if seen_user ~= "" then right[#right + 1] = "@user=" .. seen_user end
local unlisted = {}
for _, term in ipairs(right) do
  expected[term] = true
  if redis.call("SISMEMBER", prefix .. "index:" .. block .. ":" .. term, serial) == 0 then found("missing", term) end
  if redis.call("SISMEMBER", prefix .. "blocks:" .. term, block) == 0 then
    found("unlisted", term)
    unlisted[#unlisted + 1] = term
  end
end

local suspects, stale = all_terms(stored[2] or "{}"), {}
for i = 9, #ARGV do suspects[#suspects + 1] = ARGV[i] end
for _, term in ipairs(suspects) do
  if not expected[term] then
    expected[term] = true
    if redis.call("SISMEMBER", prefix .. "index:" .. block .. ":" .. term, serial) == 1 then
      found("stale", term)
      stale[#stale + 1] = term
    end
  end
end

if repair and #reply > 1 then
  if stored[1] ~= configs then
    commit({
      operation = "repair", session = session, prefix = prefix, block_size = block_size, serial = serial,
      revision = tonumber(stored[5]) or 0, not_before = tonumber(stored[6]) or 0,
      fields = { "configs", configs, "terms", terms }, before = stored[1], removed = stale, added = right,
    })
  else
    check_reach(prefix)
    redis.call("HSET", session, "terms", terms)
    update_index(prefix, block_size, serial, stale, right)
  end
  redis.call("ZADD", sessions, integer(serial), id)
  if expires_at then redis.call("ZADD", expiring, integer(expires_at), id) else redis.call("ZREM", expiring, id) end
  for _, term in ipairs(unlisted) do redis.call("SADD", prefix .. "blocks:" .. term, block) end
end
return reply
