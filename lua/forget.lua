#!lua flags=allow-oom
-- forget: remove a device from the registry, unless it is connected or was seen lately.
-- Atomic because the device may log in at this moment, and must then be registered.
-- KEYS[1]   devices    hash       device -> record (MessagePack map)
-- KEYS[2]   mains      set        registered mains
-- KEYS[3]   cursors    hash       device -> newest message id proven received
-- KEYS[4]   online     hash       device -> conn, node, since in ms, role
-- KEYS[5]   attrs      hash       device -> attributes
-- ARGV[1]   device
-- ARGV[2]   seen_before_ms        it is kept if it was last seen at this time or later
-- RETURN    1 where it was removed, else 0
-- REPEAT    safe: the second answers 0
-- COST      O(1)
local devices, mains, cursors, online, attrs = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local device, seen_before_ms = ARGV[1], tonumber(ARGV[2])

local stored = redis.call('HGET', devices, device)
if not stored or redis.call('HEXISTS', online, device) == 1 then return 0 end
if cmsgpack.unpack(stored).last_seen >= seen_before_ms then return 0 end
redis.call('HDEL', devices, device)
redis.call('SREM', mains, device)
redis.call('HDEL', cursors, device)
redis.call('HDEL', attrs, device)
return 1
