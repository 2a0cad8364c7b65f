#!lua flags=allow-oom
-- connect: register a device, take over its presence, and say where it left off.
-- Atomic because the newest login wins: two logins at once must leave one presence, and one of them
-- must hear of the other. Carries allow-oom, or no device could come to empty a full log.
-- KEYS[1]   devices    hash       device -> record (MessagePack map)
-- KEYS[2]   mains      set        registered mains
-- KEYS[3]   cursors    hash       device -> newest message id proven received
-- KEYS[4]   online     hash       device -> conn, node, since in ms, role, joined by newlines
-- KEYS[5]   head       string     id of the newest entry
-- KEYS[6]   channel    channel    of the shop
-- KEYS[7]   barred     hash       device -> since when in ms, by which back end, joined by a newline
-- ARGV[1]   device
-- ARGV[2]   role       main or sub
-- ARGV[3]   conn
-- ARGV[4]   node
-- ARGV[5]   meta       JSON text; empty leaves what is registered
-- ARGV[6]   not_after  in ms by Redis's clock: a call that comes later was given up, and must not throw
--                      out the login that was tried elsewhere instead
-- ARGV[7]   user       it belongs to from now on; empty leaves what is registered
-- ARGV[8]   groups     '=' it is in those that follow and no others, '-' leaves what is registered
-- ARGV[..]  group      the groups, for '='
-- RETURN    {cursor, head, replaced conn or false, user or false, group, group, ...}; or false where the
--           device is barred; or an error LATE
-- REPEAT    safe: a repeat by the same connection replaces nothing and keeps `since`
-- COST      O(N) for N groups; 6 reads, 2 to 4 writes
local devices, mains, cursors, online, head, channel = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local barred = KEYS[7]
local device, role, conn, node, meta, not_after = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
local user, groups = ARGV[7], ARGV[8]

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
if now > not_after then return redis.error_reply('LATE the login was given up before it came') end
if redis.call('HEXISTS', barred, device) == 1 then return false end
local newest = redis.call('GET', head) or '0-0'

local stored = redis.call('HGET', devices, device)
local record = stored and cmsgpack.unpack(stored) or {first_seen = now, registered_at = newest}
local was_main = stored and record.role == 'main'
record.role = role
record.last_seen = now
record.ended = nil
if meta ~= '' then record.meta = meta end
if user ~= '' then record.user = user end
if groups == '=' then
  -- None rather than an empty table, which could be packed as a list or as a map.
  record.groups = #ARGV > 8 and {} or nil
  for i = 9, #ARGV do record.groups[i - 8] = ARGV[i] end
end
redis.call('HSET', devices, device, cmsgpack.pack(record))
if role == 'main' and not was_main then
  redis.call('SADD', mains, device)
elseif role ~= 'main' and was_main then
  redis.call('SREM', mains, device)
end

local cursor = redis.call('HGET', cursors, device)
if not cursor then
  cursor = newest
  redis.call('HSET', cursors, device, cursor)
end

local since, replaced = string.format('%.0f', now), false
local presence = redis.call('HGET', online, device)
if presence then
  local old_conn, old_since = string.match(presence, '^([^\n]*)\n[^\n]*\n(%d+)')
  if old_conn == conn then since = old_since else replaced = old_conn end
end
redis.call('HSET', online, device, conn .. '\n' .. node .. '\n' .. since .. '\n' .. role)
if replaced then redis.call('SPUBLISH', channel, 'C' .. replaced .. '\n' .. device) end

local answer = {cursor, newest, replaced, record.user or false}
for _, group in ipairs(record.groups or {}) do answer[#answer + 1] = group end
return answer
