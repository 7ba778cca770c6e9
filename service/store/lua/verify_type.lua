-- verify_type: compare the type of a key with the type that its name says; delete a key of another type where asked.
-- KEYS[1] key
-- ARGV[1] expected    type, as TYPE returns it
-- ARGV[2] repair      0 or 1: delete a key of another type
-- returns the type of the key where it is another, else ""

local key, expected, repair = KEYS[1], ARGV[1], ARGV[2] == "1"

local actual = redis.call("TYPE", key).ok
if actual == "none" or actual == expected then return "" end
if repair then redis.call("DEL", key) end
return actual
