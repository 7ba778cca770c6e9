-- adopt_session: write a session's hash to the partition its id maps to, unless one exists or in its place. It is indexed later.
-- KEYS[1] session     hash of the session
-- KEYS[2] state       hash of the partition
-- ARGV[1] project_id  of the request; the partition's state must name it
-- ARGV[2] partitions  of the request, likewise
-- ARGV[3] replace     whether to replace a session that exists: 0 or 1
-- ARGV[4] fields      pairs of name and value; the caller limits their number
-- returns 1 if it wrote the hash, 0 if a session exists and stays; or an error of ownership.lua
-- include: ownership

local error_reply = partition_owner_error(KEYS[2], ARGV[1], ARGV[2])
if error_reply then return error_reply end
if redis.call("EXISTS", KEYS[1]) == 1 then
  if ARGV[3] == "0" then return 0 end
  redis.call("DEL", KEYS[1])
end
for i = 4, #ARGV, 2 do redis.call("HSET", KEYS[1], ARGV[i], ARGV[i + 1]) end
return 1
