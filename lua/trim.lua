#!lua flags=allow-oom
-- trim: remove the oldest entries, and what is remembered of them.
-- Atomic because a status or a number without its message would be kept for ever.
-- KEYS[1]   log        stream     the shop's entries
-- KEYS[2]   status     hash       message id -> status
-- KEYS[3]   expired    hash       message id -> devices it expired for unseen
-- KEYS[4]   numbers    hash       message id -> the number by which legacy peers know it
-- ARGV[1]   through    id         the newest entry to remove
-- ARGV[2]   entries_max           at most so many
-- RETURN    how many were removed
-- REPEAT    safe: what is gone is not counted again
-- COST      O(N) for N entries removed
local log, status_of, expired, numbers = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local through, left = ARGV[1], tonumber(ARGV[2])
-- Bounded by what `unpack` can take.
local CHUNK = 500

local removed = 0
while left > 0 do
  local ids = {}
  for i, entry in ipairs(redis.call('XRANGE', log, '-', through, 'COUNT', math.min(left, CHUNK))) do
    ids[i] = entry[1]
  end
  if #ids == 0 then break end
  removed = removed + redis.call('XDEL', log, unpack(ids))
  redis.call('HDEL', status_of, unpack(ids))
  redis.call('HDEL', expired, unpack(ids))
  redis.call('HDEL', numbers, unpack(ids))
  left = left - #ids
end
return removed
