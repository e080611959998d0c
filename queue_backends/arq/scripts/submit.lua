-- Accept tasks as arq's client would, job and place in the queue: all of them or, if there is no room for all, none;
-- or each for itself, while there is room.
--
-- KEYS  1    the caller's last call    STRING  number, a space, msgpack { task id, ... }; expires
--       2-   idempotency keys          STRING  task id, expires
-- ARGV  1    msgpack { names, max_depth, idempotency_ms, { { lane, due_ms or 0, idempotency KEYS index or 0, job,
--                      expires_ms }, ... }, number of this call, ms to remember it, the end of new ids,
--                      whether each is for itself }
-- Reply: the task ids in order, nil for one that was refused; or the string 'full'.
-- Atomic because an idempotency key, its id and its job must appear together.

local max_depth, idempotency_ms, tasks = request[2], request[3], request[4]
local number, remember_ms, suffix, each = request[5], request[6], request[7], request[8]

-- The first try may have been carried out, and its reply lost: then this one is answered in the same way. Or this is the
-- first try, which the network has held up, and it comes after it was repeated: nobody waits for it any more.
local last = redis.call('GET', KEYS[1])
local last_number = last and tonumber(string.match(last, '^%d+')) or 0
if number == last_number then
  return cmsgpack.unpack(string.match(last, '^%d+ (.*)$'))
elseif number < last_number then
  return redis.error_reply('ERR a later call of this name has been carried out')
end

local new = 0
for _, task in ipairs(tasks) do
  if task[3] == 0 or redis.call('EXISTS', KEYS[task[3]]) == 0 then
    new = new + 1
  end
end
local room = new
if max_depth > 0 and new > 0 then
  local waiting = -redis.call('ZCARD', names.running)
  for lane = 1, 3 do
    waiting = waiting + redis.call('ZCARD', names.lanes[lane])
  end
  room = max_depth - waiting
  if new > room and not each then
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

local ids, accepted = {}, 0
for position, task in ipairs(tasks) do
  local key = task[3] > 0 and KEYS[task[3]] or nil
  local id = key and redis.call('GET', key)
  if not id and room > 0 then
    id = accept(task)
    room, accepted = room - 1, accepted + 1
    if key then
      redis.call('SET', key, id, 'PX', idempotency_ms)
    end
  end
  ids[position] = id or false
end
if accepted > 0 then
  wake(accepted)
end
redis.call('SET', KEYS[1], string.format('%.0f ', number) .. cmsgpack.pack(ids), 'PX', remember_ms)
return ids
