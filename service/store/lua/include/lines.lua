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

-- Whether `text` starts and ends as the stored form does; a manual edit may not.
local function is_stored_form(text)
  return text == "{}" or (sub(text, 1, 2) == "{\n" and sub(text, -2) == "\n}")
end

-- The key that starts at `position`, and the position of its value; or nil.
local function key_at(text, position)
  -- Most keys contain no escape, and one match suffices.
  local key, from = match(text, '^("[^"\\\n]*"):()', position)
  if key then return key, from end
  local quote = byte(text, position) == QUOTE and string_end(text, position)
  if quote and byte(text, quote + 1) == COLON then return sub(text, position, quote), quote + 2 end
end

-- Iterates over the members of `text`: key, start of the line, first and last position of the value.
-- A line that is not a member yields the key false.
local function members(text)
  local position, last = 3, #text - 2
  return function()
    if position > last then return nil end
    local start = position
    local key, from = key_at(text, position)
    local line_break = key and find(text, "\n", from, true)
    -- Every line but the last ends with a comma.
    local to = line_break and (line_break > last and last or byte(text, line_break - 1) == COMMA and line_break - 2)
    position = (to and line_break or last) + 1
    if not to then return false end
    return key, start, from, to
  end
end

-- The number of members of `text`.
local function count_members(text)
  local count = 0
  for _ in members(text) do count = count + 1 end
  return count
end

-- Joins `count` pieces. On Redis 7 each new Lua string costs a pass over its bytes, so a large text is built in as few steps as
-- possible: a chain of `..` creates one string, table.concat several.
local function join(pieces, count)
  if count > 12 then return table.concat(pieces) end
  local p = pieces
  for i = count + 1, 12 do p[i] = "" end
  return p[1] .. p[2] .. p[3] .. p[4] .. p[5] .. p[6] .. p[7] .. p[8] .. p[9] .. p[10] .. p[11] .. p[12]
end

-- merge(text, keys, values, old): sets each of `keys` to its value in `values`, or removes it if that is "". One pass: members
-- that are not named are copied in spans, byte for byte; a changed member keeps its position; a new one is appended.
-- Returns the new text and its number of members, or nil if `text` is not in the stored form. Fills the table `old`, if given,
-- with the previous values by key.
local function merge(text, keys, values, old)
  if not is_stored_form(text) then return nil end
  local pieces, size, replaced, count = { "{\n" }, 1, {}, 0
  local function add(piece, value)
    if size > 1 then pieces[size + 1], size = ",\n", size + 1 end
    pieces[size + 1], size = piece, size + 1
    if value then pieces[size + 1], pieces[size + 2], size = ":", value, size + 2 end
  end
  local kept, kept_end
  for key, start, from, to in members(text) do
    if not key then return nil end
    local value = values[key]
    if value == nil then
      kept, kept_end, count = kept or start, to, count + 1
    else
      if kept then add(sub(text, kept, kept_end)) end
      kept, replaced[key] = nil, true
      if old then old[key] = sub(text, from, to) end
      if value ~= "" then
        add(key, value)
        count = count + 1
      end
    end
  end
  if kept then add(sub(text, kept, kept_end)) end
  for _, key in ipairs(keys) do
    if not replaced[key] and values[key] ~= "" then
      add(key, values[key])
      count = count + 1
    end
  end
  if count == 0 then return "{}", 0 end
  pieces[size + 1] = "\n}"
  return join(pieces, size + 1), count
end
