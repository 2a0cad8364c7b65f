#!lua flags=allow-oom
-- bar: keep a device out from now on, end its presence, and have every connection of it closed.
-- Atomic because the device may log in at this moment: it comes before and is closed, or after and is
-- refused. Carries allow-oom: a stolen handheld has to go although Redis is full.
-- KEYS[1]   barred     hash       device -> since when in ms, by which back end, joined by a newline
-- KEYS[2]   devices    hash       device -> record (MessagePack map)
-- KEYS[3]   online     hash       device -> conn, node, since in ms, role, joined by newlines
-- KEYS[4]   channel    channel    of the shop
-- ARGV[1]   device                registered or not
-- ARGV[2]   by                    the back end
-- ARGV[3]   last       bytes      the record of a signal that it is to get before; empty for none
-- RETURN    1 where it was barred just now, 0 where it was already; its connections are closed either way
-- REPEAT    safe: who barred it first, and when, stays
-- COST      O(1)
local barred, devices, online, channel = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local device, by, last = ARGV[1], ARGV[2], ARGV[3]

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local is_new = redis.call('HSETNX', barred, device, string.format('%.0f', now) .. '\n' .. by)

local conn = ''
local presence = redis.call('HGET', online, device)
if presence then
  conn = string.match(presence, '^[^\n]*')
  redis.call('HDEL', online, device)
  -- The connection's own clean-up will find no presence, and so cannot note when it was last seen.
  local stored = redis.call('HGET', devices, device)
  if stored then
    local record = cmsgpack.unpack(stored)
    record.last_seen = now
    record.ended = conn
    redis.call('HSET', devices, device, cmsgpack.pack(record))
  end
end
-- Told by device too: a connection whose presence was lost has to go as well.
redis.call('SPUBLISH', channel, 'X' .. conn .. '\n' .. device .. '\n' .. last)
return is_new
