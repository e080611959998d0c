-- Bring a dead letter back under its old id, with no failures on its account. Its model calls are numbered on.
--
-- ARGV  1    msgpack { names, letter id, task id }
-- Reply: 1, or 0 if there is no such letter, or none that could run again.
-- Atomic because two operators may press the button at once.

local letter, id = redis.call('XRANGE', names.dead, request[2], request[2])[1], request[3]
local job = letter and field_of(letter[2], 'job')
local lane = letter and tonumber(field_of(letter[2], 'lane') or '')
if not job or job == '' or not names.lanes[lane] or lane_with(id) then
  return 0
end
redis.call('XDEL', names.dead, request[2])
redis.call('DEL', names.result .. id, names.retry .. id, names.chunks .. id)
redis.call('ZREM', names.ended, id)
redis.call('HSET', names.runs .. id, 'had', '1', 'next_attempt', field_of(letter[2], 'next_attempt') or '0')
redis.call('PEXPIRE', names.runs .. id, keep.unfinished_ms)
redis.call('SET', names.job .. id, job, 'PX', keep.unfinished_ms)
redis.call('ZADD', names.lanes[lane], string.format('%.0f', now_ms()), id)
wake(1)
return 1
