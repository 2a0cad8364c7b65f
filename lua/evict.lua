#!lua flags=allow-oom
-- evict: end a device's presence, and have the node that holds its connection close it.
-- Atomic because the device may log in anew at this moment, and must then not be told to go. Carries
-- allow-oom: it frees.
-- KEYS[1]   devices    hash       device -> record (MessagePack map)
-- KEYS[2]   online     hash       device -> conn, node, since in ms, role, joined by newlines
-- KEYS[3]   channel    channel    of the shop
-- ARGV[1]   device
-- ARGV[2]   conn                  only this one; empty for whichever it is
-- ARGV[3]   last       bytes      the record of a signal that it is to get before; empty for none
-- RETURN    {0, conn} it is told to close, {1} the device is away, or not by that connection
-- REPEAT    safe: the second is {1}, or ends a connection that is newer than the first call
-- COST      O(1)
local devices, online, channel = KEYS[1], KEYS[2], KEYS[3]
local device, expected, last = ARGV[1], ARGV[2], ARGV[3]

local presence = redis.call('HGET', online, device)
if not presence then return {1} end
local conn = string.match(presence, '^[^\n]*')
if expected ~= '' and conn ~= expected then return {1} end
redis.call('HDEL', online, device)

-- The connection's own clean-up will find no presence, and so cannot note when it was last seen.
local stored = redis.call('HGET', devices, device)
if stored then
  local time = redis.call('TIME')
  local record = cmsgpack.unpack(stored)
  record.last_seen = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  -- Its node may not hear of it, and must then not give it back the presence.
  record.ended = conn
  redis.call('HSET', devices, device, cmsgpack.pack(record))
end
redis.call('SPUBLISH', channel, 'K' .. conn .. '\n' .. last)
return {0, conn}
