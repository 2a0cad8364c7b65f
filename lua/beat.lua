#!lua flags=allow-oom
-- beat: note that a node lives, and hear of every node that lately did.
-- Atomic so that all nodes are judged by one clock, Redis's.
-- KEYS[1]   nodes      hash       node -> at in ms, sessions, rooms, version; joined by blanks
-- ARGV[1]   node
-- ARGV[2]   sessions
-- ARGV[3]   rooms
-- ARGV[4]   version
-- RETURN    {now in ms, node, at in ms, node, at in ms, ...} the numbers as strings
-- REPEAT    safe: it notes a later time
-- COST      O(N) for N nodes of the last hour
local nodes = KEYS[1]
local node, sessions, rooms, version = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local KEPT_MS = 3600000

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local now_text = string.format('%.0f', now)
redis.call('HSET', nodes, node, now_text .. ' ' .. sessions .. ' ' .. rooms .. ' ' .. version)

local answer = {now_text}
local all = redis.call('HGETALL', nodes)
for i = 1, #all, 2 do
  local at = string.match(all[i + 1], '^%d+')
  if at and now - tonumber(at) <= KEPT_MS then
    answer[#answer + 1] = all[i]
    answer[#answer + 1] = at
  else
    redis.call('HDEL', nodes, all[i])
  end
end
return answer
