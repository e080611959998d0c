-- Accept tasks as arq's client would, job and place in the queue: all of them or, if the queue is full, none.
--
-- KEYS  1    the caller's last call    STRING  msgpack { number, { task id, ... } }, expires
--       2-   idempotency keys          STRING  task id, expires
-- ARGV  1    msgpack { names, max_depth, idempotency_ms, { { lane, due_ms or 0, idempotency KEYS index or 0, job,
--                      expires_ms }, ... }, number of this call, whether it is repeated, ms to remember it,
--                      the end of new ids }
-- Reply: the task ids in order, or the string 'full'.
-- Atomic because an idempotency key, its id and its job must appear together.

local max_depth, idempotency_ms, tasks = request[2], request[3], request[4]
local number, is_repeated, remember_ms, suffix = request[5], request[6], request[7], request[8]

-- The first try may have been carried out, and its reply lost.
local last = is_repeated and redis.call('GET', KEYS[1])
if last then
  last = cmsgpack.unpack(last)
  if last[1] == number then
    return last[2]
  end
end

local new = 0
for _, task in ipairs(tasks) do
  if task[3] == 0 or redis.call('EXISTS', KEYS[task[3]]) == 0 then
    new = new + 1
  end
end
if max_depth > 0 and new > 0 then
  local waiting = -redis.call('ZCARD', names.running)
  for lane = 1, 3 do
    waiting = waiting + redis.call('ZCARD', names.lanes[lane])
  end
  if waiting + new > max_depth then
    return 'full'
  end
end

-- Members of one score stand in the order of their names: ids rise, so that tasks of one millisecond keep their order.
local now = now_ms()
local counter = redis.call('INCRBY', names.ids, new) - new
local function accept(task)
  counter = counter + 1
  local id = string.format('%013.0f-%09.0f-%s', now, counter % 1000000000, suffix)
  redis.call('SET', names.job .. id, task[4], 'PX', string.format('%.0f', task[5]))
  redis.call('ZADD', names.lanes[task[1]], string.format('%.0f', task[2] > 0 and task[2] or now), id)
  return id
end

local ids = {}
for position, task in ipairs(tasks) do
  local key = task[3] > 0 and KEYS[task[3]] or nil
  local id = key and redis.call('GET', key)
  if not id then
    id = accept(task)
    if key then
      redis.call('SET', key, id, 'PX', idempotency_ms)
    end
  end
  ids[position] = id
end
if new > 0 then
  wake(new)
end
redis.call('SET', KEYS[1], cmsgpack.pack({ number, ids }), 'PX', remember_ms)
return ids
