-- renumber: give a session a new serial, if it still has the old one.
-- KEYS[1] session     hash of the session
-- KEYS[2] sessions    zset of the partition, id -> serial
-- ARGV[1] prefix      of the partition's keys
-- ARGV[2] block_size  serials per block
-- ARGV[3] project_id  of the request; the partition's state must name it
-- ARGV[4] partitions  of the request, likewise
-- ARGV[5] session_id  of the session
-- ARGV[6] old         its serial
-- ARGV[7] new         its new serial, which no other session has
-- returns 1 if it has the new serial, 0 if it did not have the old one, or the partition has another owner
-- include: ownership
-- include: renumber

local session, sessions = KEYS[1], KEYS[2]
local prefix, block_size, id, old, new = ARGV[1], tonumber(ARGV[2]), ARGV[5], ARGV[6], ARGV[7]

if partition_owner_error(prefix .. "state", ARGV[3], ARGV[4]) then return 0 end
if redis.call("HGET", session, "serial") ~= old then return 0 end
renumber(sessions, prefix, block_size, id, old, new)
return 1
