-- A session's lifetime: `expires_at` in its hash, microseconds since 1970, absent where it lives on. Invariant: the partition's
-- zset `expiring` has exactly the sessions with that field, with the same number. From that moment on, by Redis's clock, a session
-- is to every operation a deleted one; its document and its index members go with the next sweep.
-- include: commit

-- The moment in an `expires_at` as it is stored, a number; nil where a hand has made it unreadable.
local function moment_of(expires_at)
  return tonumber(match(expires_at, "^%d+$"))
end

-- Whether a session with this `expires_at`, false for none, is over.
local function is_expired(expires_at)
  if not expires_at then return false end
  local last = moment_of(expires_at)
  return last and last <= now()
end

-- What commit takes as expires_at for a lifetime of `ttl` seconds from now on: "" where it is 0, nil where it is nil.
local function lifetime(ttl)
  if not ttl then return nil end
  return ttl == 0 and "" or integer(now() + ttl * 1000000)
end
