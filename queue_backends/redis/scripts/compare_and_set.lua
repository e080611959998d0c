-- Change a key only if it holds what the caller believes, and tell watchers.
--
-- KEYS  1    the key                   STRING
--       2    the list of its family    HASH    state key -> ''; left out for a family without one
-- ARGV  has_expected 0/1, expected, has_value 0/1, value, ttl_ms or 0, changes channel, the key's own name,
--       longest value that is sent along, changes channel of the key's family or ''
-- Reply: 1 if it was changed, else 0.
-- Atomic because it is a compare-and-set.

local present = redis.call('GET', KEYS[1])
local matches = (ARGV[1] == '1' and present == ARGV[2]) or (ARGV[1] == '0' and not present)
if not matches then
  return 0
end
if ARGV[3] == '0' then
  redis.call('DEL', KEYS[1])
  if KEYS[2] then
    redis.call('HDEL', KEYS[2], ARGV[7])
  end
elseif tonumber(ARGV[5]) > 0 then
  redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[5])
else
  redis.call('SET', KEYS[1], ARGV[4])
end
if KEYS[2] and ARGV[3] == '1' then
  redis.call('HSET', KEYS[2], ARGV[7], '')
end
local sign, value = ARGV[3] == '1' and '+' or '-', ARGV[4]
if #value > tonumber(ARGV[8]) then
  sign, value = '?', ''
end
local change = sign .. #ARGV[7] .. ':' .. ARGV[7] .. value
redis.call('PUBLISH', ARGV[6], change)
if ARGV[9] ~= '' then
  redis.call('PUBLISH', ARGV[9], change)
end
return 1
