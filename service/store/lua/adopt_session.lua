-- adopt_session: put the hash of a session where its id leads to, if nothing is there. Its index follows later.
-- KEYS[1] session     hash of the session
-- KEYS[2] state       hash of the partition
-- ARGV[1] project_id  as the partition's state should have it
-- ARGV[2] partitions  likewise
-- ARGV[3] fields      two each: name and value; bounded by the caller
-- returns 1 if the hash was made, 0 where there is a session already; or an error of ownership.lua
-- include: ownership

local refusal = disowned(KEYS[2], ARGV[1], ARGV[2])
if refusal then return refusal end
if redis.call("EXISTS", KEYS[1]) == 1 then return 0 end
for i = 3, #ARGV, 2 do redis.call("HSET", KEYS[1], ARGV[i], ARGV[i + 1]) end
return 1
