-- The removal of a session: its hash, its entries in the partition's zsets, its members in every index set.
-- include: commit

-- remove(target): target.operation  "delete" or "expire"
--                 target.session, target.sessions  keys
--                 target.prefix, target.block_size, target.id
--                 target.terms, target.user, target.revision, target.serial, target.expires_at  as stored
-- If the stored serial is damaged, the zset of sessions gives it; if that fails too, a check finds the leftover index members.
local function remove(target)
  local serial = tonumber(target.serial) or tonumber(redis.call("ZSCORE", target.sessions, target.id))
  local removed = serial and all_terms(target.terms or "{}") or {}
  if serial and target.user then removed[#removed + 1] = "@user=" .. target.user end
  commit({
    operation = target.operation, session = target.session, prefix = target.prefix, block_size = target.block_size,
    serial = serial or 0, revision = tonumber(target.revision) or 0, not_before = 0, fields = nil,
    expires_at = target.expires_at and "" or nil,
    removed = removed, added = {},
  })
  redis.call("ZREM", target.sessions, target.id)
end
