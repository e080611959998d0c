-- End a task: a waiting one here and now, a running one by telling its worker, ours or arq's own.
--
-- ARGV  1    msgpack { names, task id }
-- Reply: 'cancelled', 'requested', 'finished' or 'unknown'.
-- Atomic because the task may be pulled at any moment.

local id, now = request[2], now_ms()
even_when_full(names.dead)
if redis.call('EXISTS', names.result .. id) == 1 then
  return 'finished'
end
local lane = lane_with(id)
if not lane then
  return 'unknown'
end
if redis.call('EXISTS', names.progress .. id) == 1 or redis.call('ZSCORE', names.running, id) then
  redis.call('ZADD', names.abort, now, id)
  redis.call('PUBLISH', names.control, 'cancel ' .. id)
  return 'requested'
end
end_cancelled(lane, id, nil, now)
return 'cancelled'
