-- If-Match (RFC 9110, 13.1.1) as a script gets it: "" none asked for, "*" any state, else ETags joined by commas.

-- Whether `if_match` holds for a session that exists, by its created_at and revision.
local function precondition_holds(if_match, created_at, revision)
  if if_match == "" or if_match == "*" then return true end
  return string.find("," .. if_match .. ",", "," .. created_at .. "-" .. revision .. ",", 1, true) ~= nil
end

-- Whether the fields that a write counts on are numbers; a hand may have damaged them.
local function are_numbers(...)
  for i = 1, select("#", ...) do
    if not tonumber((select(i, ...))) then return false end
  end
  return true
end

-- The answer for a session that does not exist: no state can match.
local function absent(if_match)
  return { if_match == "" and "not_found" or "precondition_failed" }
end
