-- preflight: run every command that the scripts use, on temporary keys, and remove the keys again.
-- KEYS[1] hash_key
-- KEYS[2] set_key
-- KEYS[3] zset_key
-- KEYS[4] string_key
-- ARGV[1] prefix   of these keys
-- returns {command, error, command, error, …} for each refused command
-- Without it, a missing permission would fail in the middle of a script, whose earlier writes are not rolled back.

local hash, set, zset, text, other = KEYS[1], KEYS[2], KEYS[3], KEYS[4], ARGV[1] .. "other"
local refused = {}

local function try(command, ...)
  local reply = redis.pcall(command, ...)
  if type(reply) == "table" and reply.err then refused[#refused + 1], refused[#refused + 2] = command, reply.err end
end

try("DEL", hash, set, zset, text, other)
try("TIME")
try("EXISTS", hash)
try("TYPE", hash)
try("HSET", hash, "field", "1")
try("HINCRBY", hash, "number", 1)
try("HGET", hash, "field")
try("HMGET", hash, "field", "number")
try("HEXISTS", hash, "field")
try("HSTRLEN", hash, "field")
try("HDEL", hash, "field")
try("SADD", set, 1)
-- A key whose name the script builds, as all scripts do for the index.
try("SADD", other, 1)
try("SISMEMBER", set, 1)
try("SMISMEMBER", set, 1, 2)
try("SCARD", set)
try("SMEMBERS", set)
try("SINTER", set, other)
try("SUNION", set, other)
try("SMOVE", set, other, 1)
try("SREM", set, 1)
try("ZADD", zset, 1, "member")
try("ZSCORE", zset, "member")
try("ZCARD", zset)
try("ZCOUNT", zset, "-inf", 1)
try("ZRANGE", zset, 0, 0, "WITHSCORES")
try("ZREVRANGE", zset, 0, 0, "WITHSCORES")
try("ZRANGEBYSCORE", zset, 1, 1)
try("ZREVRANGEBYSCORE", zset, 1, 1)
try("ZREM", zset, "member")
try("ZREMRANGEBYRANK", zset, 0, 0)
try("SET", text, "1", "PX", "1000")
try("GET", text)
try("DEL", hash, set, zset, text, other)
return refused
