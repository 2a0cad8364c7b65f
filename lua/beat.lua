#!lua flags=allow-oom
-- beat: note that a node lives and what it tells of itself, and hear of every node that lately did.
-- Atomic so that all nodes are judged by one clock, Redis's.
-- KEYS[1]   nodes      hash       node -> at in ms and its report, joined by a blank
-- ARGV[1]   node
-- ARGV[2]   report                connections, mains, subs, rooms, version; joined by blanks
-- RETURN    {now in ms, node, its field, node, its field, ...} the number as a string
-- REPEAT    safe: it notes a later time
-- COST      O(N) for N nodes of the last hour
local nodes = KEYS[1]
local node, report = ARGV[1], ARGV[2]
local KEPT_MS = 3600000

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local now_text = string.format('%.0f', now)
redis.call('HSET', nodes, node, now_text .. ' ' .. report)

local answer = {now_text}
local all = redis.call('HGETALL', nodes)
for i = 1, #all, 2 do
  local at = string.match(all[i + 1], '^(%d+) ')
  if at and now - tonumber(at) <= KEPT_MS then
    answer[#answer + 1] = all[i]
    answer[#answer + 1] = all[i + 1]
  else
    redis.call('HDEL', nodes, all[i])
  end
end
return answer
