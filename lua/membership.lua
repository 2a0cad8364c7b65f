#!lua
-- membership: change what devices are members of, and tell their sessions by an entry of the log.
-- Atomic because a session counts the changes from the head it logged in at: the registry and the log
-- have to agree. Without allow-oom: it grows the log. No cap: a full log refuses no change.
-- KEYS[1]   log        stream     the shop's entries, one field `e` each
-- KEYS[2]   head       string     id of the newest entry
-- KEYS[3]   devices    hash       device -> record (MessagePack map)
-- KEYS[4]   channel    channel    of the shop
-- ARGV[1]   step       join, leave, bind or unbind
-- ARGV[2]   name                  the group or the user; empty to unbind from any user
-- ARGV[3]   device                empty for every device of the shop
-- ARGV[4]   groups_max            groups a device may be in
-- ARGV[5]   record     bytes      the entry to be stored
-- ARGV[6]   publisher  node       who publishes
-- RETURN    {0, id} changed, {1} it was so already, {2} no such device, {3} a device is in too many groups
-- REPEAT    safe: the second is {1}
-- COST      O(1) for one device, O(N) for a shop of N devices
local log, head, devices, channel = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local step, name, device, groups_max = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local entry, publisher = ARGV[5], ARGV[6]

-- The groups less this one; nil for none, for an empty table could be packed as a list or as a map.
local function without(groups, left)
  local others = {}
  for _, group in ipairs(groups) do
    if group ~= left then others[#others + 1] = group end
  end
  return #others > 0 and others or nil
end

-- Takes the step; says whether it changed the record, or nil where it must not.
local function take(record)
  local groups, user = record.groups or {}, record.user
  if step == 'join' then
    for _, group in ipairs(groups) do
      if group == name then return false end
    end
    if #groups >= groups_max then return nil end
    groups[#groups + 1] = name
    record.groups = groups
    return true
  elseif step == 'leave' then
    record.groups = without(groups, name)
    return #groups > #(record.groups or {})
  elseif step == 'bind' then
    record.user = name
    return user ~= name
  end
  if not user or (name ~= '' and user ~= name) then return false end
  record.user = nil
  return true
end

local stored
if device == '' then
  stored = redis.call('HGETALL', devices)
else
  stored = {device, redis.call('HGET', devices, device)}
  if not stored[2] then return {2} end
end
-- Nothing is written before it is known that nothing is refused.
local changed = {}
for i = 1, #stored, 2 do
  local record = cmsgpack.unpack(stored[i + 1])
  local is_changed = take(record)
  if is_changed == nil then return {3} end
  if is_changed then
    changed[#changed + 1] = {stored[i], cmsgpack.pack(record)}
  end
end
if #changed == 0 then return {1} end

local id = redis.call('XADD', log, '*', 'e', entry)
local prev = redis.call('GETSET', head, id) or '0-0'
for _, field in ipairs(changed) do redis.call('HSET', devices, field[1], field[2]) end
redis.call('SPUBLISH', channel, 'E' .. prev .. ' ' .. id .. ' ' .. publisher .. '\n' .. entry)
return {0, id}
