-- many: several calls of one script, one after the other, in one call.
-- Not a script by itself: the lines of the script stand where BODY does, after its first line, so that
-- its flags hold. Each call is as atomic as it is alone, and one that fails leaves the others as they are.
-- KEYS[..]  the keys of each call, in order; in a cluster all of one slot
-- ARGV[1]   calls
-- ARGV[..]  keys, args    pairs, one for each call: how many of either it has
-- ARGV[..]  the arguments of each call, in order
-- RETURN    pairs, one for each call, in order: 1 and its answer, or 0 and its error
-- REPEAT    as the script
-- COST      that of the calls, and O(N) for N keys and arguments
local function one(KEYS, ARGV)
-- BODY
end

local calls, answers = tonumber(ARGV[1]), {}
local key, arg = 0, 1 + 2 * calls
for call = 1, calls do
  local keys, args = {}, {}
  for i = 1, tonumber(ARGV[2 * call]) do
    key = key + 1
    keys[i] = KEYS[key]
  end
  for i = 1, tonumber(ARGV[2 * call + 1]) do
    arg = arg + 1
    args[i] = ARGV[arg]
  end
  local is_done, answer = pcall(one, keys, args)
  local failure = not is_done and answer
  if type(answer) == 'table' and answer.err then failure = answer.err end
  answers[2 * call - 1] = failure and 0 or 1
  answers[2 * call] = failure and tostring(failure) or answer
end
return answers
