-- Accept tasks: all of them or, if there is no room for all, none; or each for itself, while there is room.
--
-- KEYS  1-3  lanes high, normal, low   STREAM  the normal lane gives every task its id, whatever its lane
--       4    delayed                   ZSET    task id -> due, ms
--       5    delayed entries           HASH    task id -> entry, msgpack
--       6    moved                     HASH    task id -> where its entry is, if not under its own id
--       7    the caller's last call    STRING  number, a space, msgpack { task id, ... }; expires
--       8-   idempotency keys          STRING  task id, expires
-- ARGV  1    msgpack { group, max_depth, idempotency_ms, number of this call, ms to remember it, whether each is for
--                      itself, number of dates,
--                      { lane, due_ms or 0, idempotency KEYS index or 0, which date, other fields or false, lane, ... } }
--       2-   dates: values of `enqueued_at`, most often one for all tasks
--       -    prompts, one for each task
-- Reply: the task ids in order, nil for one that was refused; or the string 'full'.
-- Atomic because an idempotency key, its id and its entry must appear together.
--
-- Prompts are arguments of their own: packed with all else, each would be hashed and copied twice (a fifth of the call's
-- time for ten tasks of 1 KB, measured). For short texts it is the other way round.

local group, max_depth, idempotency_ms, number, remember_ms, each, dates, heads = unpack(cmsgpack.unpack(ARGV[1]))

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
for at = 1, #heads, 5 do
  local key = heads[at + 2]
  if key == 0 or redis.call('EXISTS', KEYS[key]) == 0 then
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

local none = {}
local function accept(lane, due_ms, date, prompt, others)
  if due_ms == 0 and lane == 2 then
    return redis.call('XADD', KEYS[2], '*', 'prompt', prompt, 'enqueued_at', date, unpack(others or none))
  end
  local id = reserve_id()
  local fields = { 'prompt', prompt, 'enqueued_at', date, unpack(others or none) }
  fields[#fields + 1] = 'original_task_id'
  fields[#fields + 1] = id
  if due_ms > 0 then
    redis.call('ZADD', KEYS[4], due_ms, id)
    redis.call('HSET', KEYS[5], id, cmsgpack.pack(fields))
    redis.call('HSET', KEYS[6], id, 'delayed')
  else
    local entry = redis.call('XADD', KEYS[lane], '*', unpack(fields))
    redis.call('HSET', KEYS[6], id, lane .. '|' .. entry)
  end
  return id
end

local ids = {}
for at = 1, #heads, 5 do
  local lane, due_ms, index, date, others = unpack(heads, at, at + 4)
  local position, key = #ids + 1, KEYS[index]
  local id = key and redis.call('GET', key)
  if not id and room > 0 then
    id = accept(lane, due_ms, ARGV[1 + date], ARGV[1 + dates + position], others)
    room = room - 1
    if key then
      redis.call('SET', key, id, 'PX', idempotency_ms)
    end
  end
  ids[position] = id or false
end
redis.call('SET', KEYS[7], string.format('%.0f ', number) .. cmsgpack.pack(ids), 'PX', remember_ms)
return ids
