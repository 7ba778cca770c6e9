-- Taking a session away: its document, its places in the partition's zsets, its members in every index set.
-- include: commit

-- remove(gone): gone.operation        "delete" or "expire"
--               gone.session, gone.sessions  keys
--               gone.prefix, gone.block_size, gone.id
--               gone.configs, gone.terms, gone.user, gone.revision, gone.serial, gone.expires_at  as they are stored
-- Where a hand has damaged the serial, the zset of sessions knows it; where that does not either, a check finds the members.
local function remove(gone)
  local serial = tonumber(gone.serial) or tonumber(redis.call("ZSCORE", gone.sessions, gone.id))
  local removed = serial and all_terms(gone.terms or "{}") or {}
  if serial and gone.user then removed[#removed + 1] = "@user=" .. gone.user end
  commit({
    operation = gone.operation, session = gone.session, prefix = gone.prefix, block_size = gone.block_size,
    serial = serial or 0, revision = tonumber(gone.revision) or 0, not_before = 0, fields = nil,
    expires_at = gone.expires_at and "" or nil,
    before = gone.configs, removed = removed, added = {},
  })
  redis.call("ZREM", gone.sessions, gone.id)
end
