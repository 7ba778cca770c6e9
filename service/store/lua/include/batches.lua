-- Long argument lists. Lua's unpack pushes every value onto the C stack, which holds about 8,000; so no command gets more
-- arguments from a list than one batch.

local BATCH = 1000 -- arguments per call

-- Calls visit(first, last) for every run of at most `size` of the positions 1 to `count`.
local function each_batch(count, size, visit)
  for first = 1, count, size do visit(first, math.min(first + size - 1, count)) end
end
