-- A job cannot be read, or has expired: to the dead letters with the reason, under the fence.
--
-- ARGV  1    msgpack { names, lane, id, token, ending (see write_end), reason, beginning of the prompt, attempt,
--                      next_attempt, whether the job is readable JSON }
-- Reply: 1, or 0 if the lease is lost.
-- Atomic because a letter without its result, or the other way round, would be half a death.

local lane, id, ending, reason = request[2], request[3], request[5], request[6]
if not owns(lane, id, request[4]) then
  return 0
end
even_when_full(names.dead)

-- A letter keeps its job up to a megabyte; a longer one, or one that is gone, cannot be requeued.
local job = redis.call('GET', names.job .. id)
local is_kept = job and #job <= 1048576
redis.call('XADD', names.dead, 'MAXLEN', '~', names.dead_limit, '*', 'task_id', id, 'prompt', request[7],
  'error', reason, 'attempt', string.format('%.0f', request[8]), 'lane', lane,
  'next_attempt', string.format('%.0f', request[9]), 'job', is_kept and job or '')
local is_json, decoded = pcall(cjson.decode, is_kept and job or '')
end_with_error(names.chunks .. id, is_json and list_of(decoded) or nil, id, reason, keep)
local now = now_ms()
write_end(lane, id, ending, now, request[10])
trim_ended(1, now)
return 1
