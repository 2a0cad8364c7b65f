#!lua flags=no-writes
-- read: a page of the log after an id, with what has become of each entry since.
-- Atomic so that a status and the entry that announces it are seen together or not at all.
-- KEYS[1]   log        stream     the shop's entries, one field `e` each
-- KEYS[2]   status     hash       message id -> status, id of the entry that set it, by; joined by newlines
-- KEYS[3]   expired    hash       message id -> devices it expired for unseen, joined by newlines
-- ARGV[1]   after      id         exclusive
-- ARGV[2]   entries_max           1 to 1000
-- ARGV[3]   bytes_max             of records; the page ends before it, but holds one entry at least
-- RETURN    {1 where the log goes no further, else 0, id, record, status or false, expired or false, id, ...}
-- REPEAT    safe: it writes nothing
-- COST      O(N) for N entries
local log, status_of, expired = KEYS[1], KEYS[2], KEYS[3]
local after, entries_max, bytes_max = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
-- Entries are read a few at a time, so that a page of large ones does not copy the log first.
local CHUNK = 64

local ids, records, bytes, is_end = {}, {}, 0, 0
local open = true
while open do
  -- One more than is wanted tells whether the log goes on.
  local count = math.min(CHUNK, entries_max - #ids + 1)
  local chunk = redis.call('XRANGE', log, '(' .. after, '+', 'COUNT', count)
  for _, entry in ipairs(chunk) do
    local record = entry[2][2] or ''
    if #ids == entries_max or (#ids > 0 and bytes + #record > bytes_max) then
      open = false
      break
    end
    ids[#ids + 1], records[#records + 1] = entry[1], record
    bytes = bytes + #record
    after = entry[1]
  end
  if open and #chunk < count then
    is_end = 1
    open = false
  end
end

local answer = {is_end}
if #ids > 0 then
  local statuses = redis.call('HMGET', status_of, unpack(ids))
  local unseen = redis.call('HMGET', expired, unpack(ids))
  for i, id in ipairs(ids) do
    answer[i * 4 - 2], answer[i * 4 - 1], answer[i * 4], answer[i * 4 + 1] = id, records[i], statuses[i], unseen[i]
  end
end
return answer
