#!lua
-- set_status: deal with a message: compare and set, then an entry that tells the others.
-- Atomic because several mains see one order, and the first to deal with it wins. Without allow-oom:
-- it grows the log, and a refused deal can be tried again. No cap: a full log refuses no deal.
-- KEYS[1]   log        stream     the shop's entries, one field `e` each
-- KEYS[2]   head       string     id of the newest entry
-- KEYS[3]   status     hash       message id -> status, id of the entry that set it, by; joined by newlines
-- KEYS[4]   channel    channel    of the shop
-- ARGV[1]   message    id         what is dealt with
-- ARGV[2]   status                the new one
-- ARGV[3]   expect                the present one, or empty: nobody has dealt with it
-- ARGV[4]   by                    "d", device and role, or "a" and name; joined by newlines
-- ARGV[5]   initial               the status the message started with
-- ARGV[6]   record     bytes      the entry to be stored
-- ARGV[7]   publisher  node       who publishes
-- RETURN    {0, id} set, {1} unchanged: the same origin had set the same status, {2, status, by or false}
--           conflict, {3} the message is not in the log
-- REPEAT    safe: without expect the second is {1}; with expect it is {2} with the caller as by, or
--           {0} again where the expected status is the new one
-- COST      O(log N) for a log of N entries
local log, head, status_of, channel = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local message, status, expect, by = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local initial, record, publisher = ARGV[5], ARGV[6], ARGV[7]

if #redis.call('XRANGE', log, message, message) == 0 then return {3} end

local present, present_by = initial, false
local stored = redis.call('HGET', status_of, message)
if stored then present, present_by = string.match(stored, '^([^\n]*)\n[^\n]*\n(.*)$') end

if expect ~= '' then
  if present ~= expect then return {2, present, present_by} end
elseif stored then
  if present == status and present_by == by then return {1} end
  return {2, present, present_by}
end

local id = redis.call('XADD', log, '*', 'e', record)
local prev = redis.call('GETSET', head, id) or '0-0'
redis.call('HSET', status_of, message, status .. '\n' .. id .. '\n' .. by)
redis.call('SPUBLISH', channel, 'E' .. prev .. ' ' .. id .. ' ' .. publisher .. '\n' .. record)
return {0, id}
