#!lua flags=allow-oom
-- note_conn: note whose a connection of a node is, or that it is gone.
-- A script so that many of them go together; by themselves they are commands.
-- KEYS[1]   conns      hash       connection of the node -> its shop and device, joined by a newline
-- ARGV[1]   conn
-- ARGV[2]   whose      its shop and device; empty where it is gone
-- ARGV[3]   kept_s     how long the hash is kept from now on, in seconds, where something is noted
-- RETURN    1 where something changed, else 0
-- REPEAT    safe
-- COST      O(1), 1 or 2 writes
local conns, conn, whose, kept_s = KEYS[1], ARGV[1], ARGV[2], ARGV[3]

if whose == '' then return redis.call('HDEL', conns, conn) end
local added = redis.call('HSET', conns, conn, whose)
-- A node that logs somebody in and never beats leaves nothing behind either.
redis.call('EXPIRE', conns, kept_s)
return added
