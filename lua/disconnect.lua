#!lua flags=allow-oom
-- disconnect: end a device's presence, if it is still this connection's, and let its cursor pass what
-- was not for it.
-- Atomic because the device may have logged in elsewhere: a late clean-up must not remove the newer
-- presence, nor move the cursor of a device that may have another role by now.
-- KEYS[1]   devices    hash       device -> record (MessagePack map)
-- KEYS[2]   online     hash       device -> conn, node, since in ms, role, joined by newlines
-- KEYS[3]   cursors    hash       device -> newest message id proven received
-- ARGV[1]   device
-- ARGV[2]   conn
-- ARGV[3]   settled    id         everything up to it was proven or was not for the device; 0-0 for nothing
-- RETURN    1 where the presence was this connection's, else 0
-- REPEAT    safe: the second answers 0
-- COST      O(1)
local devices, online, cursors = KEYS[1], KEYS[2], KEYS[3]
local device, conn, settled = ARGV[1], ARGV[2], ARGV[3]

-- Ids hold numbers beyond 2^53, so they are compared as text: by length first.
local function is_before(a, b)
  local a_ms, a_n = string.match(a, '^(%d+)%-(%d+)$')
  local b_ms, b_n = string.match(b, '^(%d+)%-(%d+)$')
  if a_ms ~= b_ms then return #a_ms < #b_ms or (#a_ms == #b_ms and a_ms < b_ms) end
  return #a_n < #b_n or (#a_n == #b_n and a_n < b_n)
end

local presence = redis.call('HGET', online, device)
if not presence or string.match(presence, '^[^\n]*') ~= conn then return 0 end
redis.call('HDEL', online, device)

local cursor = redis.call('HGET', cursors, device)
if cursor and is_before(cursor, settled) then redis.call('HSET', cursors, device, settled) end

local stored = redis.call('HGET', devices, device)
if stored then
  local time = redis.call('TIME')
  local record = cmsgpack.unpack(stored)
  record.last_seen = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  redis.call('HSET', devices, device, cmsgpack.pack(record))
end
return 1
