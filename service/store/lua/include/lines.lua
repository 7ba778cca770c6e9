-- The stored form of a JSON object: one member a line.
--
--   {
--   "agent":"bot1",
--   "runtime":{"name":"r1"}
--   }
--
-- A value never holds a raw line break, so a line is a member and no value is ever parsed here. `{}` is the empty object. A
-- session's terms are kept in the same form: key, then its terms, joined by tabs.

local sub, find, byte = string.sub, string.find, string.byte
local QUOTE, BACKSLASH, COLON, COMMA = 34, 92, 58, 44

-- Position of the quote that ends the JSON string that starts at `at`, or nil.
local function string_end(text, at)
  local quote = find(text, '"', at + 1, true)
  while quote do
    local before = quote - 1
    while byte(text, before) == BACKSLASH do before = before - 1 end
    -- An even number of backslashes before it: the quote itself is not escaped.
    if (quote - before) % 2 == 1 then return quote end
    quote = find(text, '"', quote + 1, true)
  end
end

-- Whether `text` has the outline of the form; what a hand has written may not.
local function is_lines(text)
  return text == "{}" or (sub(text, 1, 2) == "{\n" and sub(text, -2) == "\n}")
end

-- Iterates over the members of `text`: key, start of the line, first and last position of the value.
-- A line that is no member yields the key false.
local function members(text)
  local at, last = 3, #text - 2
  return function()
    if at > last then return nil end
    local start = at
    local quote = byte(text, at) == QUOTE and string_end(text, at)
    local line_break = quote and byte(text, quote + 1) == COLON and find(text, "\n", quote, true)
    -- Every line but the last ends with a comma.
    local to = line_break and (line_break > last and last or byte(text, line_break - 1) == COMMA and line_break - 2)
    at = (to and line_break or last) + 1
    if not to then return false end
    return sub(text, start, quote), start, quote + 2, to
  end
end

-- merge(text, keys, values): `text` with each of `keys` set to its value in `values`, or removed where that is "". One pass:
-- what is not named is copied in whole spans, byte for byte; a changed member keeps its place; a new one goes to the end.
-- Returns the new text, its number of members and the old values by key; nil where `text` is not of the form.
local function merge(text, keys, values)
  if not is_lines(text) then return nil end
  local pieces, old, count = {}, {}, 0
  local kept, kept_end
  for key, start, from, to in members(text) do
    if not key then return nil end
    local value = values[key]
    if value == nil then
      kept, kept_end, count = kept or start, to, count + 1
    else
      if kept then pieces[#pieces + 1] = sub(text, kept, kept_end) end
      kept, old[key] = nil, sub(text, from, to)
      if value ~= "" then pieces[#pieces + 1], count = key .. ":" .. value, count + 1 end
    end
  end
  if kept then pieces[#pieces + 1] = sub(text, kept, kept_end) end
  for _, key in ipairs(keys) do
    if old[key] == nil and values[key] ~= "" then
      pieces[#pieces + 1], count = key .. ":" .. values[key], count + 1
    end
  end
  if count == 0 then return "{}", 0, old end
  return "{\n" .. table.concat(pieces, ",\n") .. "\n}", count, old
end
