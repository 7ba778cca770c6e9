-- The stored form of a JSON object: one member a line.
--
--   {
--   "agent":"bot1",
--   "runtime":{"name":"r1"}
--   }
--
-- A value never holds a raw line break, so a line is a member and no value is ever parsed here. `{}` is the empty object. A
-- session's terms are kept in the same form: key, then its terms (see index.lua).

local sub, find, match, byte = string.sub, string.find, string.match, string.byte
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

-- The key that starts at `at` and where its value starts, or nil.
local function key_at(text, at)
  -- Most keys have nothing escaped: one match takes them.
  local key, from = match(text, '^("[^"\\\n]*"):()', at)
  if key then return key, from end
  local quote = byte(text, at) == QUOTE and string_end(text, at)
  if quote and byte(text, quote + 1) == COLON then return sub(text, at, quote), quote + 2 end
end

-- Iterates over the members of `text`: key, start of the line, first and last position of the value.
-- A line that is no member yields the key false.
local function members(text)
  local at, last = 3, #text - 2
  return function()
    if at > last then return nil end
    local start = at
    local key, from = key_at(text, at)
    local line_break = key and find(text, "\n", from, true)
    -- Every line but the last ends with a comma.
    local to = line_break and (line_break > last and last or byte(text, line_break - 1) == COMMA and line_break - 2)
    at = (to and line_break or last) + 1
    if not to then return false end
    return key, start, from, to
  end
end

-- How many members `text` has; as many as there are lines where they are members.
local function count_members(text)
  local count = 0
  for _ in members(text) do count = count + 1 end
  return count
end

-- Puts `count` pieces together. On Redis 7 a string in Lua costs a pass over all of its bytes, so a large text is made in as few
-- steps as can be: the operator makes one string, table.concat several on its way.
local function join(pieces, count)
  if count > 12 then return table.concat(pieces) end
  local p = pieces
  for i = count + 1, 12 do p[i] = "" end
  return p[1] .. p[2] .. p[3] .. p[4] .. p[5] .. p[6] .. p[7] .. p[8] .. p[9] .. p[10] .. p[11] .. p[12]
end

-- merge(text, keys, values, old): `text` with each of `keys` set to its value in `values`, or removed where that is "". One pass:
-- what is not named is copied in whole spans, byte for byte; a changed member keeps its place; a new one goes to the end.
-- Returns the new text and its number of members, nil where `text` is not of the form. The table `old`, if given, gets the
-- values before, by key.
local function merge(text, keys, values, old)
  if not is_lines(text) then return nil end
  local pieces, size, seen, count = { "{\n" }, 1, {}, 0
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
      kept, seen[key] = nil, true
      if old then old[key] = sub(text, from, to) end
      if value ~= "" then
        add(key, value)
        count = count + 1
      end
    end
  end
  if kept then add(sub(text, kept, kept_end)) end
  for _, key in ipairs(keys) do
    if not seen[key] and values[key] ~= "" then
      add(key, values[key])
      count = count + 1
    end
  end
  if count == 0 then return "{}", 0 end
  pieces[size + 1] = "\n}"
  return join(pieces, size + 1), count
end
