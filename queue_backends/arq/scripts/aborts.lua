-- What arq's clients asked to abort: jobs that wait end here, those of the caller's own runs are told.
--
-- ARGV  1    msgpack { names, consumer }
-- Reply: ids of tasks that the caller runs.
-- Atomic because a waiting job may be pulled at any moment.
--
-- The set is every queue's, and arq itself never takes from it what nobody runs: the newest ones are looked at. An
-- older one is met when its job is pulled or renewed.

local consumer, now, running = request[2], now_ms(), {}
local asked = redis.call('ZREVRANGE', names.abort, 0, 199)
if #asked > 0 then
  even_when_full(names.dead)
end
for _, id in ipairs(asked) do
  local mark = redis.call('GET', names.progress .. id)
  if mark then
    if string.sub(mark, -#consumer - 1) == '/' .. consumer then
      running[#running + 1] = id
    end
  elseif not redis.call('ZSCORE', names.running, id) then
    local lane = lane_with(id)
    if lane then
      end_cancelled(lane, id, nil, now)
    end
  end
end
return running
