-- verify_type: compare the type of a key with the type its name implies; optionally delete a key of another type.
-- KEYS[1] key
-- ARGV[1] expected    type, as TYPE returns it
-- ARGV[2] repair      0 or 1: delete a key of another type
-- returns the type of the key if it is another one, else ""

local key, expected, repair = KEYS[1], ARGV[1], ARGV[2] == "1"

local actual = redis.call("TYPE", key).ok
if actual == "none" or actual == expected then return "" end
if repair then redis.call("DEL", key) end
return actual
