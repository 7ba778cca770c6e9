-- count_sessions: count the sessions of a partition that have a term, without expired ones. Read-only.
-- KEYS[1] expiring    zset of the partition, id -> expires_at
-- ARGV[1] prefix      of the partition's keys
-- ARGV[2] block_size  serials per block
-- ARGV[3] term        as in the index
-- ARGV[4] max_expired  expired sessions to examine at most, the oldest expiry first
-- returns the count; if more than max_expired wait for the sweep, it may include some of them
-- include: ttl

local prefix, block_size, term = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local call = redis.call

local function index_key(block)
  return prefix .. "index:" .. block .. ":" .. term
end

local count = 0
for _, block in ipairs(call("SMEMBERS", prefix .. "blocks:" .. term)) do
  count = count + call("SCARD", index_key(block))
end
if count > 0 then
  for _, id in ipairs(call("ZRANGEBYSCORE", KEYS[1], "-inf", integer(now()), "LIMIT", 0, ARGV[4])) do
    local stored = call("HMGET", prefix .. "session:" .. id, "serial", "expires_at")
    local serial = stored[1] and tonumber(stored[1])
    if serial and is_expired(stored[2]) then
      count = count - call("SISMEMBER", index_key(integer(math.floor(serial / block_size))), stored[1])
    end
  end
end
return count
