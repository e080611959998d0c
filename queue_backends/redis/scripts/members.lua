-- Who takes tasks from a queue's partitions: one member says that it lives, or leaves, and hears of all others.
--
-- KEYS  1    members                   ZSET    member -> its end unless it says so again, ms
-- ARGV  member, lifetime_ms or 0 to leave
-- Reply: the members that live, the caller among them unless it leaves.
-- Atomic because who has died must be gone from the list that everybody computes its share from.

local now, lifetime_ms = now_ms(), tonumber(ARGV[2])
if lifetime_ms > 0 then
  redis.call('ZADD', KEYS[1], now + lifetime_ms, ARGV[1])
  redis.call('PEXPIRE', KEYS[1], 10 * lifetime_ms)
else
  redis.call('ZREM', KEYS[1], ARGV[1])
end
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 1000)) do
  redis.call('ZREM', KEYS[1], member)
end
return redis.call('ZRANGE', KEYS[1], 0, -1)
