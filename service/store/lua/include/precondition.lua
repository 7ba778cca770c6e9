-- The conditions of a request (RFC 9110, 13.1) as a script takes them: "" for none, else If-Match, "|", If-None-Match.
-- Each is "" if the request has no such header, "*" for any state, else ETags with a comma before, between and after them.

local function matches(list, etag)
  return list == "*" or find(list, "," .. etag .. ",", 1, true) ~= nil
end

-- The reply of a write whose conditions fail for an existing session, given its created_at and revision; nil if they hold.
-- If-Match is evaluated first (RFC 9110, 13.2.2).
local function condition_failure(conditions, created_at, revision)
  if conditions == "" then return nil end
  local if_match, if_none_match = match(conditions, "^([^|]*)|([^|]*)$")
  local etag = created_at .. "-" .. revision
  if if_match ~= "" and not matches(if_match, etag) then return { "precondition_failed", "If-Match" } end
  if if_none_match ~= "" and matches(if_none_match, etag) then return { "precondition_failed", "If-None-Match" } end
  return nil
end

-- Whether the fields that a write depends on are numbers; a manual edit may have damaged them.
local function are_numbers(...)
  for i = 1, select("#", ...) do
    if not tonumber((select(i, ...))) then return false end
  end
  return true
end

-- The reply for a session that does not exist: no ETag can match, so If-Match fails and If-None-Match holds.
local function not_found(conditions)
  if match(conditions, "^[^|]") then return { "precondition_failed", "If-Match" } end
  return { "not_found" }
end
