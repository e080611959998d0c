-- Take names of keys off the list of their family if they do not exist any more.
--
-- KEYS  1    the list                  HASH    state key -> ''
--       2..  the keys                  STRING
-- ARGV  the keys' own names, in the same order
-- Reply: how many were taken off.
-- Atomic because a key may be written again at this moment, which lists it.

local gone = 0
for place = 2, #KEYS do
  if redis.call('EXISTS', KEYS[place]) == 0 then
    gone = gone + redis.call('HDEL', KEYS[1], ARGV[place - 1])
  end
end
return gone
