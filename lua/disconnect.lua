#!lua flags=allow-oom
-- disconnect: end a device's presence, if it is still this connection's.
-- Atomic because the device may have logged in elsewhere: a late clean-up must not remove the newer
-- presence.
-- KEYS[1]   devices    hash       device -> record (MessagePack map)
-- KEYS[2]   online     hash       device -> conn, node, since in ms, role, joined by newlines
-- ARGV[1]   device
-- ARGV[2]   conn
-- RETURN    1 where the presence was this connection's, else 0
-- REPEAT    safe: the second answers 0
-- COST      O(1)
local devices, online = KEYS[1], KEYS[2]
local device, conn = ARGV[1], ARGV[2]

local presence = redis.call('HGET', online, device)
if not presence or string.match(presence, '^[^\n]*') ~= conn then return 0 end
redis.call('HDEL', online, device)

local stored = redis.call('HGET', devices, device)
if stored then
  local time = redis.call('TIME')
  local record = cmsgpack.unpack(stored)
  record.last_seen = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  redis.call('HSET', devices, device, cmsgpack.pack(record))
end
return 1
