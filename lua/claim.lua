#!lua flags=allow-oom
-- claim: take a task that one node of all should do, for a while, or go on holding it.
-- Atomic because a lease may run out between reading and renewing it. Carries allow-oom, or nobody
-- could claim the trimming that empties a full Redis.
-- KEYS[1]   lease      string     the node that has the task
-- ARGV[1]   node
-- ARGV[2]   lease_ms
-- RETURN    1 where this node has the task, else 0
-- REPEAT    safe: the holder's lease begins anew
-- COST      O(1)
local lease = KEYS[1]
local node, lease_ms = ARGV[1], ARGV[2]

local holder = redis.call('GET', lease)
if holder and holder ~= node then return 0 end
redis.call('SET', lease, node, 'PX', lease_ms)
return 1
