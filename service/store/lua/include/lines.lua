-- The stored form of a JSON object: one member a line.
--
--   {
--   "agent":"bot1",
--   "runtime":{"name":"r1"}
--   }
--
-- A value never contains a raw line break, so each line is one member and no value is parsed here. `{}` is the empty object. A
-- session's terms are stored in the same form: key, then its packed terms (see index.lua).

local sub, find, match, byte = string.sub, string.find, string.match, string.byte
local QUOTE, BACKSLASH, COLON, COMMA = 34, 92, 58, 44

-- Position of the closing quote of the JSON string that starts at `position`, or nil.
local function string_end(text, position)
  local quote = find(text, '"', position + 1, true)
  while quote do
    local before = quote - 1
    while byte(text, before) == BACKSLASH do before = before - 1 end
    -- After an even number of backslashes the quote is not escaped.
    if (quote - before) % 2 == 1 then return quote end
    quote = find(text, '"', quote + 1, true)
  end
end

-- The key with escapes that starts at `position`, and the position of its value; or nil.
local function escaped_key_at(text, position)
  local quote = byte(text, position) == QUOTE and string_end(text, position)
  if quote and byte(text, quote + 1) == COLON then return sub(text, position, quote), quote + 2 end
end

-- The next step of members().
local function next_member(text, position)
  local last = #text - 2
  if position > last then return nil end
  -- Most keys contain no escape, and one match suffices.
  local key, from = match(text, '^("[^"\\\n]*"):()', position)
  if not key then key, from = escaped_key_at(text, position) end
  if not key then return last + 1, false end
  local line_break = find(text, "\n", from, true)
  if not line_break then return last + 1, false end
  if line_break > last then return last + 1, key, from, last end
  -- Every line but the last ends with a comma.
  if byte(text, line_break - 1) ~= COMMA then return last + 1, false end
  return line_break + 1, key, from, line_break - 2
end

-- Iterates over the members of `text`: start of the next line, key, first and last position of the value.
-- A line that is not a member has the key false, and ends the iteration.
local function members(text)
  return next_member, text, 3
end
