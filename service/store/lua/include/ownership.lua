-- Between the check of a request's API key and its write, the project may be deleted, or created again under the same name, and
-- the store may get another number of partitions. So the state of each partition contains the id of its project and the number of
-- partitions, a project's record contains its id, and every script that writes compares them first.
-- Each function returns the error reply for the script to return, or nil if the owner is unchanged. A state or record without
-- these fields is refused as well: its owner is unknown.

local function owner_error(stored_id, stored_partitions, project_id, partitions)
  if stored_id == project_id and stored_partitions == partitions then return nil end
  if not stored_id or not stored_partitions then return redis.error_reply("NOOWNER the state has no project or partitions") end
  if stored_id ~= project_id then return redis.error_reply("OTHERPROJECT the keys belong to another project") end
  return redis.error_reply("OTHERLAYOUT the store has another number of partitions")
end

-- For a partition; `state` is the key of its state.
local function partition_owner_error(state, project_id, partitions)
  local owner = redis.call("HMGET", state, "project_id", "partitions")
  return owner_error(owner[1], owner[2], project_id, partitions)
end

-- For the keys of a project itself; `record` is the key of its record.
local function project_owner_error(record, project_id)
  local stored = redis.call("HGET", record, "id")
  return owner_error(stored, "", project_id, "")
end
