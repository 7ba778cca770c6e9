-- patch_project: merge members into a project's own configs, as patch does into a session's.
-- KEYS[1] project     hash of the project
-- ARGV[1] project_id  of the request, as the record should have it
-- ARGV[2] max_bytes   of the configs after the merge, unless they were as large before
-- ARGV[3] max_keys    at the top, as above
-- ARGV[4] members     two each: key as JSON, raw value ("" removes)
-- returns {"ok", configs, configs_revision} | {"unreadable"} | {"too_large"} | {"too_many_keys"}
--       | an error of ownership.lua
-- include: ownership
-- include: lines

local project, max_bytes, max_keys = KEYS[1], tonumber(ARGV[2]), tonumber(ARGV[3])

local refusal = other_project(project, ARGV[1])
if refusal then return refusal end

local keys, values = {}, {}
for i = 4, #ARGV, 2 do
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
