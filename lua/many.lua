-- many: several calls of one script, one after the other, in one call.
-- Not a script by itself: the lines of the script stand where BODY does, after its first line, so that
-- its flags hold. Each call is as atomic as it is alone, and one that fails leaves the others as they are.
-- KEYS[..]  the keys of each call, in order; in a cluster all of one slot
-- ARGV[1]   calls
-- ARGV[..]  keys, args    pairs, one for each call: how many of either it has, at most 1000
-- ARGV[..]  the arguments of each call, in order
-- RETURN    for each call, in order: how many items its answer has, and those; or -1 and its error. In one
--           list, since Redis looks at a list within a list for seven names that it may be an answer by
-- REPEAT    as the script
-- COST      that of the calls, and O(N) for N keys and arguments
local function one(KEYS, ARGV)
-- BODY
end

local calls = tonumber(ARGV[1])
local key, arg = 0, 1 + 2 * calls
local answers, at = {}, 0
for call = 1, calls do
  local last_key, last_arg = key + ARGV[2 * call], arg + ARGV[2 * call + 1]
  local is_done, answer = pcall(one, {unpack(KEYS, key + 1, last_key)}, {unpack(ARGV, arg + 1, last_arg)})
  key, arg = last_key, last_arg
  if type(answer) ~= 'table' then answer = {answer} end
  if is_done and not answer.err then
    local items = #answer
    answers[at + 1] = items
    for item = 1, items do answers[at + 1 + item] = answer[item] end
    at = at + 1 + items
  else
    answers[at + 1], answers[at + 2] = -1, tostring(answer.err or answer[1])
    at = at + 2
  end
end
return answers
