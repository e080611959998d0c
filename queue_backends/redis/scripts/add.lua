-- Add to a counter unless that would exceed its limit.
--
-- KEYS  1    counter set               HASH    field -> amount
-- ARGV  field, amount, has_limit 0/1, limit, ttl_ms or 0
-- Reply: the new amount, or nil if the limit forbids it.
-- Atomic because concurrent callers share the limit.

local present = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0')
if ARGV[3] == '1' and present + tonumber(ARGV[2]) > tonumber(ARGV[4]) then
  return nil
end
local amount = redis.call('HINCRBY', KEYS[1], ARGV[1], ARGV[2])
if tonumber(ARGV[5]) > 0 then
  redis.call('PEXPIRE', KEYS[1], ARGV[5])
end
return amount
