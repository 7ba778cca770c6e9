-- register_user: register the user of a session that exists; one that is registered stays as it is, and can no longer be withdrawn.
-- KEYS[1] users       zset of the project, identifier -> created_at
-- KEYS[2] expected    hash of the project, identifier -> undecided creates
-- ARGV[1] identifier  of the user
-- returns created_at in microseconds
-- include: user

-- In this order: after a first write Redis refuses a script no memory, so a refusal must come before all writes.
local created_at = add_user(KEYS[1], ARGV[1])
redis.call("HDEL", KEYS[2], ARGV[1])
return created_at
