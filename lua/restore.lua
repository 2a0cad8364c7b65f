#!lua flags=allow-oom
-- restore: give a connected device its presence back, where the store has lost it.
-- Atomic because the device may log in anew at this moment, and then that connection is the one it has.
-- KEYS[1]   devices    hash       device -> record (MessagePack map)
-- KEYS[2]   online     hash       device -> conn, node, since in ms, role, joined by newlines
-- KEYS[3]   barred     hash       device -> since when in ms, by which back end, joined by a newline
-- ARGV[1]   device
-- ARGV[2]   conn
-- ARGV[3]   node
-- ARGV[4]   since      in ms by Redis's clock
-- ARGV[5]   role       main or sub
-- RETURN    0 it is there again, 1 the device has another connection, 2 the device is not registered, or an
--           operator has ended this connection or barred the device
-- REPEAT    safe: what is this connection's already stays as it is
-- COST      O(1)
local devices, online, barred = KEYS[1], KEYS[2], KEYS[3]
local device, conn, node, since, role = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

local stored = redis.call('HGET', devices, device)
if not stored or cmsgpack.unpack(stored).ended == conn then return 2 end
if redis.call('HEXISTS', barred, device) == 1 then return 2 end
local presence = redis.call('HGET', online, device)
if presence then return string.match(presence, '^[^\n]*') == conn and 0 or 1 end
redis.call('HSET', online, device, conn .. '\n' .. node .. '\n' .. since .. '\n' .. role)
return 0
