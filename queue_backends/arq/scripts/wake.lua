-- Make delayed tasks ready now. Others are left as they are.
--
-- ARGV  1    msgpack { names, { task id, ... } }
-- Reply: for each, 1 if it was delayed, else 0.
-- Atomic because a job may be claimed at any moment.

local now, woken, ready = now_ms(), {}, 0
even_when_full(names.dead)
for position, id in ipairs(request[2]) do
  local lane = lane_with(id)
  local runs = lane and (redis.call('ZSCORE', names.running, id) or redis.call('EXISTS', names.progress .. id) == 1)
  woken[position] = 0
  if lane and not runs and tonumber(redis.call('ZSCORE', names.lanes[lane], id)) > now then
    redis.call('ZADD', names.lanes[lane], string.format('%.0f', now), id)
    woken[position], ready = 1, ready + 1
  end
end
if ready > 0 then
  wake(ready)
end
return woken
