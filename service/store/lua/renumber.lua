-- renumber: give a session another serial, if it still has the one that was seen.
-- KEYS[1] session     hash of the session
-- KEYS[2] sessions    zset of the partition, id -> serial
-- ARGV[1] prefix      of the partition's keys
-- ARGV[2] block_size  serials a block
-- ARGV[3] id          of the session
-- ARGV[4] seen        its serial
-- ARGV[5] serial      its new one, which no session has
-- returns 1 where it has the new serial, 0 where it had another one than was seen
-- include: renumber

local session, sessions = KEYS[1], KEYS[2]
local prefix, block_size, id, seen, serial = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]

if redis.call("HGET", session, "serial") ~= seen then return 0 end
renumber(sessions, prefix, block_size, id, seen, serial)
return 1
