-- Extend the leases of deliveries that are still their holder's.
--
-- ARGV  1    msgpack { names, { { lane, id, token }, ... } }
-- Reply: { { positions that are lost, from 0 }, { task ids to cancel } }
-- Atomic because a lease that ran out between check and write may be somebody else's already.

local lost, cancelled, at = {}, {}, now_ms() + names.lease_ms
even_when_full(names.dead)
local any_abort = redis.call('EXISTS', names.abort) == 1
for position, held in ipairs(request[2]) do
  local lane, id = held[1], held[2]
  if owns(lane, id, held[3]) and redis.call('ZSCORE', names.lanes[lane], id) then
    hold(lane, id, held[3], at)
    if any_abort and redis.call('ZSCORE', names.abort, id) then
      cancelled[#cancelled + 1] = id
    end
  else
    lost[#lost + 1] = position - 1
  end
end
return { lost, cancelled }
