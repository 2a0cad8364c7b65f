#!lua flags=allow-oom
-- mark_delivered: move devices' cursors forward to the ids they have proven, never back.
-- Atomic because two nodes may hold connections of one device while it reconnects; only one of
-- them may count the delivery.
-- KEYS[1]   cursors    hash       device -> newest message id proven received
-- KEYS[2]   expired    hash       message id -> devices it expired for unseen, joined by newlines
-- ARGV[1]   marks                 1 to 100
-- ARGV[..]  device                of each mark
-- ARGV[..]  through               of each mark
-- ARGV[..]  mark, ids             pairs: which mark, and what expired there, joined by commas
-- RETURN    per mark, in order: the cursor before, or false where it did not move
-- REPEAT    safe: a mark that was applied before does not move the cursor, and expires nothing
-- COST      O(N) for N marks and their expired ids
local cursors, expired = KEYS[1], KEYS[2]
local marks = tonumber(ARGV[1])

-- Ids are two numbers of 64 bits, beyond what Lua's numbers hold exactly. They are printed without
-- leading zeros, so the longer is the greater.
local function is_less(a, b)
  if #a ~= #b then return #a < #b end
  return a < b
end

local function is_after(a, b)
  -- Nearly always they are of one shape, and text of one shape is in the order of its numbers.
  if #a == #b and string.find(a, '-', 1, true) == string.find(b, '-', 1, true) then return a > b end
  local a_ms, a_n = string.match(a, '^(%d+)%-(%d+)$')
  local b_ms, b_n = string.match(b, '^(%d+)%-(%d+)$')
  if a_ms ~= b_ms then return is_less(b_ms, a_ms) end
  return is_less(b_n, a_n)
end

local before, at, moved = redis.call('HMGET', cursors, unpack(ARGV, 2, 1 + marks)), {}, {}
for mark = 1, marks do
  local device, through = ARGV[1 + mark], ARGV[1 + marks + mark]
  -- Of two marks of one device the second finds what the first has left.
  local from = at[device] or before[mark]
  if from and is_after(through, from) then
    before[mark], at[device] = from, through
    moved[#moved + 1] = device
    moved[#moved + 1] = through
  else
    before[mark] = false
  end
end
if #moved > 0 then redis.call('HSET', cursors, unpack(moved)) end

for pair = 2 + 2 * marks, #ARGV, 2 do
  local mark = tonumber(ARGV[pair])
  local device, from, through = ARGV[1 + mark], before[mark], ARGV[1 + marks + mark]
  for id in string.gmatch(from and ARGV[pair + 1] or '', '[^,]+') do
    if is_after(id, from) and not is_after(id, through) then
      local others = redis.call('HGET', expired, id)
      redis.call('HSET', expired, id, others and (others .. '\n' .. device) or device)
    end
  end
end
return before
