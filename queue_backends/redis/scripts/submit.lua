-- Accept tasks: all of them or, if the queue is full, none.
--
-- KEYS  1-3  lanes high, normal, low   STREAM  the normal lane gives every task its id, whatever its lane
--       4    delayed                   ZSET    task id -> due, ms
--       5    delayed entries           HASH    task id -> entry, msgpack
--       6    moved                     HASH    task id -> where its entry is, if not under its own id
--       7    the caller's last call    STRING  msgpack { number, { task id, ... } }, expires
--       8-   idempotency keys          STRING  task id, expires
-- ARGV  1    msgpack { group, max_depth, idempotency_ms, { { lane, due_ms or 0, idempotency KEYS index or 0, fields }, ... },
--                      number of this call, whether it is repeated, ms to remember it }
-- Reply: the task ids in order, or the string 'full'.
-- Atomic because an idempotency key, its id and its entry must appear together.

local request = cmsgpack.unpack(ARGV[1])
local group, max_depth, idempotency_ms, tasks = request[1], request[2], request[3], request[4]
local number, is_repeated, remember_ms = request[5], request[6], request[7]

-- The first try may have been carried out, and its reply lost.
local last = is_repeated and redis.call('GET', KEYS[7])
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

local function waiting()
  local count = redis.call('ZCARD', KEYS[4])
  for lane = 1, 3 do
    count = count + redis.call('XLEN', KEYS[lane])
  end
  if count + new > max_depth then -- only now is it worth asking how many of them are running
    for lane = 1, 3 do
      local pending = redis.pcall('XPENDING', KEYS[lane], group)
      count = count - (pending[1] or 0)
    end
  end
  return count
end

if max_depth > 0 and new > 0 and waiting() + new > max_depth then
  return 'full'
end

local function reserve_id()
  local id = redis.call('XADD', KEYS[2], '*', 'reserved', '1')
  redis.call('XDEL', KEYS[2], id)
  return id
end

local function accept(lane, due_ms, fields)
  if due_ms > 0 then
    local id = reserve_id()
    fields[#fields + 1] = 'original_task_id'
    fields[#fields + 1] = id
    redis.call('ZADD', KEYS[4], due_ms, id)
    redis.call('HSET', KEYS[5], id, cmsgpack.pack(fields))
    redis.call('HSET', KEYS[6], id, 'delayed')
    return id
  end
  if lane == 2 then
    return redis.call('XADD', KEYS[2], '*', unpack(fields))
  end
  local id = reserve_id()
  fields[#fields + 1] = 'original_task_id'
  fields[#fields + 1] = id
  local entry = redis.call('XADD', KEYS[lane], '*', unpack(fields))
  redis.call('HSET', KEYS[6], id, lane .. '|' .. entry)
  return id
end

local ids = {}
for position, task in ipairs(tasks) do
  local key = task[3] > 0 and KEYS[task[3]] or nil
  local id = key and redis.call('GET', key)
  if not id then
    id = accept(task[1], task[2], task[4])
    if key then
      redis.call('SET', key, id, 'PX', idempotency_ms)
    end
  end
  ids[position] = id
end
redis.call('SET', KEYS[7], cmsgpack.pack({ number, ids }), 'PX', remember_ms)
return ids
