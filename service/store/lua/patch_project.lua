-- patch_project: merge members into a project's own configs, as patch does into a session's.
-- KEYS[1] project     hash of the project
-- ARGV[1] max_bytes   of the configs after the merge, unless they were as large before
-- ARGV[2] max_keys    at the top, as above
-- ARGV[3] members     two each: key as JSON, raw value ("" removes)
-- returns {"ok", configs, configs_revision} | {"unreadable"} | {"too_large"} | {"too_many_keys"}
-- include: lines

local project, max_bytes, max_keys = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])

local keys, values = {}, {}
for i = 3, #ARGV, 2 do
  keys[#keys + 1], values[ARGV[i]] = ARGV[i], ARGV[i + 1]
end
local stored = redis.call("HGET", project, "configs") or "{}"
local configs, key_count = merge(stored, keys, values)
if not configs then return { "unreadable" } end
-- Growth alone is refused, as in patch.
if #configs > max_bytes and #configs > #stored then return { "too_large" } end
if key_count > max_keys and key_count > count_members(stored) then return { "too_many_keys" } end
-- Counts the changes: what is told the partitions of them goes by it.
local revision = redis.call("HINCRBY", project, "configs_revision", 1)
redis.call("HSET", project, "configs", configs)
return { "ok", configs, revision }
