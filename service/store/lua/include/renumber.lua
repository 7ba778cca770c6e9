-- A new serial for a session: its hash, the zset of sessions and the index change together.
-- include: index

-- All terms of the session in the hash `key`, including its user's; nil if it is not a hash.
local function session_terms(key)
  local stored = redis.pcall("HMGET", key, "terms", "user")
  if stored.err then return nil end
  local terms = all_terms(stored[1] or "{}")
  if stored[2] then terms[#terms + 1] = "@user=" .. stored[2] end
  return terms
end

-- The other sessions that have the same `serial` (a number as text), and so share their index members with this one.
local function sharing(sessions, prefix, id, serial)
  local others = {}
  for _, other in ipairs(redis.call("ZRANGEBYSCORE", sessions, serial, serial)) do
    if other ~= id and redis.pcall("HGET", prefix .. "session:" .. other, "serial") == serial then
      others[#others + 1] = other
    end
  end
  return others
end

-- Moves session `id` from serial `old` to `new`, both numbers as text. Another session that has `old` too keeps it.
local function renumber(sessions, prefix, block_size, id, old, new)
  check_reach(prefix)
  local key = prefix .. "session:" .. id
  local terms = session_terms(key)
  update_index(prefix, block_size, old, terms, {})
  redis.call("HSET", key, "serial", new)
  redis.call("ZADD", sessions, new, id)
  update_index(prefix, block_size, new, {}, terms)
  for _, other in ipairs(sharing(sessions, prefix, id, old)) do
    update_index(prefix, block_size, old, {}, session_terms(prefix .. "session:" .. other))
  end
end
