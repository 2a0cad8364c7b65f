#!lua
-- set_attrs: set a device's attributes, unless they are others by now than they were expected to be.
-- Atomic because two patches at once must not lose one: who merges read before. No flags: a full Redis
-- refuses it.
-- KEYS[1]   devices    hash       device -> record
-- KEYS[2]   attrs      hash       device -> attributes, JSON text
-- ARGV[1]   device
-- ARGV[2]   expected              the text that is there; empty for none
-- ARGV[3]   attrs_new             the text to be there; empty for none
-- RETURN    0 set, 1 not: something else is there, 2 no such device
-- REPEAT    safe: the second is 1, or 0 where nothing changes
-- COST      O(1)
local devices, attrs = KEYS[1], KEYS[2]
local device, expected, attrs_new = ARGV[1], ARGV[2], ARGV[3]

if redis.call('HEXISTS', devices, device) == 0 then return 2 end
if (redis.call('HGET', attrs, device) or '') ~= expected then return 1 end
if attrs_new == '' then
  redis.call('HDEL', attrs, device)
else
  redis.call('HSET', attrs, device, attrs_new)
end
return 0
