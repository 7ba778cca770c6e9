-- patch_project: merge members into a project's own configs, as patch.lua does for a session.
-- KEYS[1] project     hash of the project
-- ARGV[1] project_id  of the request; the project's record must have it
-- ARGV[2] max_bytes   of the configs after the merge; larger ones may stay or shrink, but not grow
-- ARGV[3] max_keys    at the top level, likewise
-- ARGV[4] members     pairs of key as JSON and raw value ("" removes)
-- returns {"ok", configs, configs_revision} | {"unreadable"} | {"too_large"} | {"too_many_keys"}
--       | an error of ownership.lua
-- include: ownership
-- include: merge

local project, max_bytes, max_keys = KEYS[1], tonumber(ARGV[2]), tonumber(ARGV[3])

local error_reply = project_owner_error(project, ARGV[1])
if error_reply then return error_reply end

local keys, values = {}, {}
for i = 4, #ARGV, 2 do
  keys[#keys + 1], values[ARGV[i]] = ARGV[i], ARGV[i + 1]
end
local stored = redis.call("HGET", project, "configs") or "{}"
local configs, key_count = merge(stored, keys, values)
if not configs then return { "unreadable" } end
-- Only growth is refused, as in patch.lua.
if #configs > max_bytes and #configs > #stored then return { "too_large" } end
if key_count > max_keys and key_count > count_members(stored) then return { "too_many_keys" } end
-- The revision orders the changes that partitions receive (see set_session_ttl.lua).
local revision = redis.call("HINCRBY", project, "configs_revision", 1)
redis.call("HSET", project, "configs", configs)
return { "ok", configs, revision }
