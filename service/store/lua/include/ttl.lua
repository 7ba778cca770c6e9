-- A session's time to live: `expires_at` in its hash, microseconds since 1970, absent if it never expires. Invariant: the
-- partition's zset `expiring` contains exactly the sessions with that field, with the same number. From that time on, by Redis's
-- clock, every operation treats the session as deleted; the next sweep removes its hash and index members.
-- include: commit

-- A stored `expires_at` as a number; nil if a manual edit made it unreadable.
local function parse_expires_at(expires_at)
  return tonumber(match(expires_at, "^%d+$"))
end

-- Whether a session with this `expires_at` (false for none) has expired.
local function is_expired(expires_at)
  if not expires_at then return false end
  local last = parse_expires_at(expires_at)
  return last and last <= now()
end

-- The write.expires_at that commit takes for a TTL of `ttl` seconds from now: "" (never) for 0, nil (unchanged) for nil.
local function expires_at_for(ttl)
  if not ttl then return nil end
  return ttl == 0 and "" or integer(now() + ttl * 1000000)
end
