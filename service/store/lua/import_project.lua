-- import_project: give a project the configs that it had in another store.
-- KEYS[1] project     hash of the project
-- ARGV[1] project_id  of the import; the project's record must have it
-- ARGV[2] configs     stored form
-- ARGV[3] revision    of the configs
-- ARGV[4] on_conflict  what to do if the project has other configs: fail, skip or replace
-- returns {status, configs_revision, configs} as they are now; the status is created, replaced, present, skipped or conflict
--       | an error of ownership.lua
-- include: ownership

local project, configs, revision, on_conflict = KEYS[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]

local error_reply = project_owner_error(project, ARGV[1])
if error_reply then return error_reply end

local stored = redis.call("HMGET", project, "configs", "configs_revision")
local stored_configs, stored_revision = stored[1] or "{}", tonumber(stored[2]) or 0
local status = "created"
if stored_configs == configs then
  status = "present"
elseif stored_configs ~= "{}" then
  status = ({ fail = "conflict", skip = "skipped", replace = "replaced" })[on_conflict]
end
if status == "conflict" or status == "skipped" then return { status, stored_revision, stored_configs } end
if status ~= "present" then revision = math.max(revision, stored_revision + 1) end
-- The revision orders the changes that partitions receive (see set_session_ttl.lua).
if revision > stored_revision then
  redis.call("HSET", project, "configs_revision", string.format("%.0f", revision), "configs", configs)
end
return { status, math.max(revision, stored_revision), configs }
