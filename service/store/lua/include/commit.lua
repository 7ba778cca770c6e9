-- Every write goes through commit: configs, revision, times, terms and index change together, here and nowhere else.
-- include: index

-- %.0f, because Lua's own conversion keeps 14 digits and a time in microseconds has 16.
local function integer(number)
  return string.format("%.0f", number)
end

-- Redis's clock in microseconds, read once: all times of one write are equal.
local clock
local function now()
  if not clock then
    local time = redis.call("TIME")
    clock = time[1] * 1000000 + time[2]
  end
  return clock
end

-- The bytes of a session's configs, without reading them; nil if it has none.
local function configs_size(session)
  local size = redis.call("HSTRLEN", session, "configs")
  if size > 0 or redis.call("HEXISTS", session, "configs") == 1 then return size end
end

-- Whether a write can make the session larger.
local function grows(write)
  local gets_expiry = (write.expires_at or "") ~= "" and not write.had_expiry
  return write.operation == "create" or #write.added > 0 or write.size > write.size_before or gets_expiry
end

-- commit(write): write.operation   name of the operation
--                write.session     key of the session
--                write.prefix, write.block_size, write.serial
--                write.revision    the revision before (0 for a new session)
--                write.not_before  lower bound of updated_at in microseconds, in case the clock stepped back
--                write.updated_at  nil for now
--                write.fields      fields of the session to set; nil removes the session. commit adds to it
--                write.size, write.size_before  bytes of the configs after and before, unless the session is created or removed
--                write.removed, write.added  terms
--                write.expires_at  when the session expires (microseconds, as text), "" for never, nil for unchanged
--                write.had_expiry  whether the session had an expires_at before
--                write.keys        the keys that change in the configs (nil: all). With the operation, and the configs that the
--                                  hash still has when commit begins, that is what a change log would need
-- Returns the new revision and updated_at, as stored. If a key is out of reach it fails before it writes anything; so an
-- operation does its own writes after it.
local function commit(write)
  check_reach(write.prefix)
  local expiring = write.expires_at and write.prefix .. "expiring"
  local revision = integer(write.revision + 1)
  local updated_at = write.updated_at or integer(math.max(now(), write.not_before))
  local fields = write.fields
  if fields then
    -- Out of memory, Redis refuses a script whose first write may need memory, and checks no later write. So a write that does not
    -- grow the session starts with a DEL, which needs none, and works in a full store as a removal does.
    if not grows(write) then redis.call("DEL", write.prefix .. "never") end
    if expiring and write.expires_at ~= "" then
      fields[#fields + 1], fields[#fields + 2] = "expires_at", write.expires_at
    end
    redis.call("HSET", write.session, "revision", revision, "updated_at", updated_at, unpack(write.fields))
  else
    redis.call("DEL", write.session)
  end
  if expiring then
    -- A session's key ends with its id.
    local id = match(write.session, "[^:]+$")
    if write.expires_at == "" then
      if fields then redis.call("HDEL", write.session, "expires_at") end
      redis.call("ZREM", expiring, id)
    else
      redis.call("ZADD", expiring, write.expires_at, id)
    end
  end
  update_index(write.prefix, write.block_size, write.serial, write.removed, write.added)
  return revision, updated_at
end
