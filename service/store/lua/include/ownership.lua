-- What a request was checked for at its head may have changed before it writes: its project may be deleted, or created anew under
-- the same name, and the store may have another number of partitions. So every partition's state has the id of its project and the
-- number of partitions, a project's record has the id, and whatever writes compares them before it does anything else.
-- Each of these functions returns the error reply that a script answers with, nil where all is as it was. A state or record
-- without the fields is refused as well: nothing is written where nobody can say whose it is.

local function owner_failure(stored_id, stored_partitions, project_id, partitions)
  if stored_id == project_id and stored_partitions == partitions then return nil end
  if not stored_id or not stored_partitions then return redis.error_reply("NOOWNER the state has no project or partitions") end
  if stored_id ~= project_id then return redis.error_reply("OTHERPROJECT the keys belong to another project") end
  return redis.error_reply("OTHERLAYOUT the store has another number of partitions")
end

-- For a partition, by the key of its state.
local function disowned(state, project_id, partitions)
  local owner = redis.call("HMGET", state, "project_id", "partitions")
  return owner_failure(owner[1], owner[2], project_id, partitions)
end

-- For the keys of a project itself, by the key of its record.
local function other_project(record, project_id)
  local stored = redis.call("HGET", record, "id")
  return owner_failure(stored, "", project_id, "")
end
