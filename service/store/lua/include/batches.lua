-- Long lists of arguments. Lua's unpack pushes every value onto its C stack, which ends near 8,000; so no command gets more
-- arguments from a list than one batch, however long the list is.

local BATCH = 1000 -- arguments a call

-- Calls visit(first, last) for every run of at most `size` of the positions 1 to `count`.
local function each_batch(count, size, visit)
  for first = 1, count, size do visit(first, math.min(first + size - 1, count)) end
end
