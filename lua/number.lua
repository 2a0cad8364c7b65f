#!lua
-- number: give messages the numbers by which legacy peers know them, where they have none yet.
-- Atomic because two nodes may show a message for the first time at once, and a number without its
-- message would be kept for ever. No flags: a full Redis refuses it.
-- KEYS[1]   log        stream     the shop's entries
-- KEYS[2]   numbers    hash       message id -> number
-- ARGV[..]  message, number       pairs; nobody else has been offered the number
-- RETURN    per pair, in order: the number that the message has now, the offered or an earlier one, as a
--           string; false where it is not in the log, and has none
-- REPEAT    safe: the number given first stays
-- COST      O(N log M) for N pairs and a log of M entries
local log, numbers = KEYS[1], KEYS[2]

local answer = {}
for i = 1, #ARGV, 2 do
  local message, number = ARGV[i], ARGV[i + 1]
  local given = redis.call('HGET', numbers, message)
  if not given and #redis.call('XRANGE', log, message, message) > 0 then
    redis.call('HSET', numbers, message, number)
    given = number
  end
  answer[#answer + 1] = given
end
return answer
