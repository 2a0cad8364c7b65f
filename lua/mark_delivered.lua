#!lua flags=allow-oom
-- mark_delivered: move devices' cursors forward to the ids they have proven, never back.
-- Atomic because two nodes may hold connections of one device while it reconnects; only one of
-- them may count the delivery.
-- KEYS[1]   cursors    hash       device -> newest message id proven received
-- KEYS[2]   expired    hash       message id -> devices it expired for unseen, joined by newlines
-- ARGV[..]  device, through, expired ids joined by commas    triples, 1 to 100 of them
-- RETURN    per triple, in order: the cursor before, or false where it did not move
-- REPEAT    safe: a triple that was applied before does not move the cursor, and expires nothing
-- COST      O(N) for N triples and their expired ids
local cursors, expired = KEYS[1], KEYS[2]

-- Ids are two numbers of 64 bits, beyond what Lua's numbers hold exactly. They are printed without
-- leading zeros, so the longer is the greater.
local function is_less(a, b)
  if #a ~= #b then return #a < #b end
  return a < b
end

local function is_after(a, b)
  local a_ms, a_n = string.match(a, '^(%d+)%-(%d+)$')
  local b_ms, b_n = string.match(b, '^(%d+)%-(%d+)$')
  if a_ms ~= b_ms then return is_less(b_ms, a_ms) end
  return is_less(b_n, a_n)
end

local names = {}
for i = 1, #ARGV, 3 do names[#names + 1] = ARGV[i] end
local present = redis.call('HMGET', cursors, unpack(names))
local at = {}
for i, name in ipairs(names) do at[name] = present[i] end

local answers, moved = {}, {}
for i = 1, #ARGV, 3 do
  local device, through, unseen = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local from = at[device]
  if from and is_after(through, from) then
    at[device] = through
    moved[#moved + 1] = device
    moved[#moved + 1] = through
    answers[#answers + 1] = from
    for id in string.gmatch(unseen, '[^,]+') do
      if is_after(id, from) and not is_after(id, through) then
        local others = redis.call('HGET', expired, id)
        redis.call('HSET', expired, id, others and (others .. '\n' .. device) or device)
      end
    end
  else
    answers[#answers + 1] = false
  end
end
if #moved > 0 then redis.call('HSET', cursors, unpack(moved)) end
return answers
