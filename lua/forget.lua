#!lua flags=allow-oom
-- forget: remove a device from the registry, with all that is kept of it: unless it is connected or was
-- seen lately; or, for an operator, whatever it does, and then its connection is closed too.
-- Atomic because the device may log in at this moment, and must then be registered.
-- KEYS[1]   devices    hash       device -> record (MessagePack map)
-- KEYS[2]   mains      set        registered mains
-- KEYS[3]   cursors    hash       device -> newest message id proven received
-- KEYS[4]   online     hash       device -> conn, node, since in ms, role, joined by newlines
-- KEYS[5]   attrs      hash       device -> attributes
-- KEYS[6]   channel    channel    of the shop
-- ARGV[1]   device
-- ARGV[2]   seen_before_ms        it is kept if it was last seen at this time or later; empty for an operator
-- RETURN    1 where it was removed, else 0
-- REPEAT    safe: the second answers 0
-- COST      O(1)
local devices, mains, cursors, online, attrs, channel = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local device, seen_before_ms = ARGV[1], ARGV[2]

local stored = redis.call('HGET', devices, device)
if not stored then return 0 end
local presence = redis.call('HGET', online, device)
if seen_before_ms ~= '' then
  if presence or cmsgpack.unpack(stored).last_seen >= tonumber(seen_before_ms) then return 0 end
end
redis.call('HDEL', devices, device)
redis.call('SREM', mains, device)
redis.call('HDEL', cursors, device)
redis.call('HDEL', attrs, device)
if presence then
  redis.call('HDEL', online, device)
  redis.call('SPUBLISH', channel, 'K' .. string.match(presence, '^[^\n]*') .. '\n')
end
return 1
