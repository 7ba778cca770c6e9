-- Changes of a text in the stored form of lines.lua.
-- include: lines

-- Whether `text` starts and ends as the stored form does; a manual edit may not.
local function is_stored_form(text)
  return text == "{}" or (sub(text, 1, 2) == "{\n" and sub(text, -2) == "\n}")
end

-- The number of members of `text`.
local function count_members(text)
  local count = 0
  for _ in members(text) do count = count + 1 end
  return count
end

-- The number of terms in a session's `terms` field; a member without terms counts as one.
local function count_terms(text)
  local _, tabs = string.gsub(text, "\t", "")
  return tabs + count_members(text)
end

-- Joins the pieces of a text. On Redis 7 each new Lua string costs a pass over its bytes, so a large text is built in as few
-- steps as possible: a chain of `..` creates one string, table.concat several.
local function join(p)
  if #p > 8 then return table.concat(p) end
  return p[1] .. (p[2] or "") .. (p[3] or "") .. (p[4] or "") .. (p[5] or "") .. (p[6] or "") .. (p[7] or "") .. (p[8] or "")
end

-- merge(text, keys, values, old): sets each of `keys` to its value in `values`, or removes it if that is "". One pass: what is
-- not named is copied in spans, byte for byte; a changed member keeps its position; a new one is appended.
-- Returns the new text and its number of members, or nil if `text` is not in the stored form. Fills the table `old`, if given,
-- with the previous values by key; then members that keep their value are left alone, too.
local function merge(text, keys, values, old)
  if not is_stored_form(text) then return nil end
  if #text < 4 then text = "{\n\n}" end -- where a first member goes
  local pieces, copied = {}, 0 -- `copied`: the pieces contain or omit the text up to this position
  local count, present = 0, {}
  for next_line, key, from, to in members(text) do
    if not key then return nil end
    local value = values[key]
    if value ~= nil then
      present[key] = true
      local before = old and sub(text, from, to)
      if old then old[key] = before end
      if value == "" then
        -- With the line goes the separator before it, or the one after it if no member is kept before.
        local start = from - #key - 1
        pieces[#pieces + 1] = sub(text, copied + 1, count == 0 and start - 1 or start - 3)
        copied = count == 0 and next_line - 1 or to
      elseif value ~= before then
        pieces[#pieces + 1], pieces[#pieces + 2], copied = sub(text, copied + 1, from - 1), value, to
      end
    end
    if value ~= "" then count = count + 1 end
  end
  for _, key in ipairs(keys) do
    local value = values[key]
    if value ~= "" and not present[key] then
      pieces[#pieces + 1] = sub(text, copied + 1, -3)
      pieces[#pieces + 1] = (count == 0 and "" or ",\n") .. key .. ":"
      pieces[#pieces + 1], copied = value, #text - 2
      count = count + 1
    end
  end
  if count == 0 then return "{}", 0 end
  if #pieces == 0 then return text, count end
  pieces[#pieces + 1] = sub(text, copied + 1)
  return join(pieces), count
end
