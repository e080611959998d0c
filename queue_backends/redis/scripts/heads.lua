-- The last id that each lane has given so far: what comes later has a higher one.
--
-- KEYS  1-3  lanes high, normal, low   STREAM
-- Reply: three ids; 0-0 for a lane that is not there, $ for one that an ACL hides.
-- Atomic for no reason: it changes nothing, and spares its caller the entries that XINFO tells as well.

local heads = {}
for lane = 1, 3 do
  local facts = redis.pcall('XINFO', 'STREAM', KEYS[lane])
  heads[lane] = '$'
  if facts.err and string.find(facts.err, 'no such key', 1, true) then
    heads[lane] = '0-0'
  end
  for position = 1, #facts, 2 do
    if facts[position] == 'last-generated-id' then
      heads[lane] = facts[position + 1]
    end
  end
end
return heads
