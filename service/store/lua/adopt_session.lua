-- adopt_session: put the hash of a session where its id leads to, if nothing is there. Its index follows later.
-- KEYS[1] session     hash of the session
-- ARGV[1] fields      two each: name and value; bounded by the caller
-- returns 1 if the hash was made, 0 where there is a session already

if redis.call("EXISTS", KEYS[1]) == 1 then return 0 end
for i = 1, #ARGV, 2 do redis.call("HSET", KEYS[1], ARGV[i], ARGV[i + 1]) end
return 1
