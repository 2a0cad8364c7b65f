#!lua
-- publish: store one message and tell every node that listens to the shop.
-- Atomic because the id of the entry before (`prev`) has to be that of the entry before, and because
-- a key is to store one entry however many nodes retry it. No flags: a full Redis refuses it.
-- KEYS[1]   log        stream     the shop's entries, one field `e` each
-- KEYS[2]   head       string     id of the newest entry
-- KEYS[3]   channel    channel    of the shop
-- KEYS[4]   mains      set        registered mains
-- KEYS[5]   devices    hash       device -> record
-- KEYS[6]   once       string     message id stored under the idempotency key; not given without one
-- ARGV[1]   record     bytes      the envelope
-- ARGV[2]   publisher  node       who publishes
-- ARGV[3]   entries_max           entries the log may hold
-- ARGV[4]   once_ms               how long the idempotency key is kept, in milliseconds
-- ARGV[5]   check                 what has to be registered: '-' nothing, 'm' a main, 'd' one of the devices,
--                                 'r' any device at all
-- ARGV[..]  device                the devices, for 'd'
-- RETURN    {0, id} stored, {1, id} stored before under this key, {2} no main, {3} no such device,
--           {4} the log is full
-- REPEAT    with a key: {1, id} and nothing else happens; without: a second entry
-- COST      O(1), O(N) for N devices; 4 calls on the plain path, each a tenth of its throughput
local log, head, channel, mains, devices, once = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local record, publisher, entries_max = ARGV[1], ARGV[2], tonumber(ARGV[3])
local once_ms, check = ARGV[4], ARGV[5]
local UNPACK_MAX = 1000

if once then
  local before = redis.call('GET', once)
  if before then return {1, before} end
end

if check == 'm' then
  if redis.call('SCARD', mains) == 0 then return {2} end
elseif check == 'd' then
  local found = false
  for first = 6, #ARGV, UNPACK_MAX do
    local last = math.min(first + UNPACK_MAX - 1, #ARGV)
    for _, known in ipairs(redis.call('HMGET', devices, unpack(ARGV, first, last))) do
      if known then found = true end
    end
    if found then break end
  end
  if not found then return {3} end
elseif check == 'r' then
  if redis.call('EXISTS', devices) == 0 then return {3} end
end

if redis.call('XLEN', log) >= entries_max then return {4} end

local id = redis.call('XADD', log, '*', 'e', record)
local prev = redis.call('GETSET', head, id) or '0-0'
if once then redis.call('SET', once, id, 'PX', once_ms) end
redis.call('SPUBLISH', channel, 'E' .. prev .. ' ' .. id .. ' ' .. publisher .. '\n' .. record)
return {0, id}
