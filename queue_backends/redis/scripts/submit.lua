-- Accept tasks: all of them or, if there is no room for all, none; or each for itself, while there is room.
--
-- KEYS  1-3  lanes high, normal, low   STREAM  the normal lane gives every task its id, whatever its lane
--       4    delayed                   ZSET    task id -> due, ms
--       5    delayed entries           HASH    task id -> entry, msgpack
--       6    moved                     HASH    task id -> where its entry is, if not under its own id
--       7    the caller's last call    STRING  number, a space, msgpack { task id, ... }; expires
--       8-   idempotency keys          STRING  task id, expires
-- ARGV  1    msgpack { group, max_depth, idempotency_ms, { { lane, due_ms or 0, idempotency KEYS index or 0, fields }, ... },
--                      number of this call, ms to remember it, whether each is for itself }
-- Reply: the task ids in order, nil for one that was refused; or the string 'full'.
-- Atomic because an idempotency key, its id and its entry must appear together.

local request = cmsgpack.unpack(ARGV[1])
local group, max_depth, idempotency_ms, tasks = request[1], request[2], request[3], request[4]
local number, remember_ms, each = request[5], request[6], request[7]

-- The first try may have been carried out, and its reply lost: then this one is answered in the same way. Or this is the
-- first try, which the network has held up, and it comes after it was repeated: nobody waits for it any more.
local last = redis.call('GET', KEYS[7])
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

local room = max_depth > 0 and new > 0 and max_depth - waiting() or new
if new > room and not each then
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
  if not id and room > 0 then
    id = accept(task[1], task[2], task[4])
    room = room - 1
    if key then
      redis.call('SET', key, id, 'PX', idempotency_ms)
    end
  end
  ids[position] = id or false
end
redis.call('SET', KEYS[7], string.format('%.0f ', number) .. cmsgpack.pack(ids), 'PX', remember_ms)
return ids
