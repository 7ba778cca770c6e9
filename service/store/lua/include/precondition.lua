-- The conditions of a write (RFC 9110, 13.1) as a script gets them: "" for none, else If-Match and If-None-Match with | between.
-- Each is "" where the request has no such header, "*" for any state, else ETags with a comma before, between and after them.

local function names(list, etag)
  return list == "*" or find(list, "," .. etag .. ",", 1, true) ~= nil
end

-- The reply of a write whose conditions do not hold for a session that exists, by its created_at and revision; nil where they hold.
-- If-Match comes first (RFC 9110, 13.2.2).
local function condition_failure(conditions, created_at, revision)
  if conditions == "" then return nil end
  local if_match, if_none_match = match(conditions, "^([^|]*)|([^|]*)$")
  local etag = created_at .. "-" .. revision
  if if_match ~= "" and not names(if_match, etag) then return { "precondition_failed", "If-Match" } end
  if if_none_match ~= "" and names(if_none_match, etag) then return { "precondition_failed", "If-None-Match" } end
  return nil
end

-- Whether the fields that a write counts on are numbers; a hand may have damaged them.
local function are_numbers(...)
  for i = 1, select("#", ...) do
    if not tonumber((select(i, ...))) then return false end
  end
  return true
end

-- The answer for a session that does not exist: no state can match, so If-Match fails and If-None-Match holds.
local function absent(conditions)
  if match(conditions, "^[^|]") then return { "precondition_failed", "If-Match" } end
  return { "not_found" }
end
