-- End a task: a waiting one here and now, a running one by telling its worker.
--
-- KEYS  1-3  lanes high, normal, low   STREAM
--       4    results                   HASH    task id -> result JSON
--       5    results' expiry           ZSET    task id -> ended, ms
--       6    delayed                   ZSET    task id -> due, ms
--       7    delayed entries           HASH    task id -> entry, msgpack
--       8    moved                     HASH    task id -> where its entry is, if not under its own id
--       9    cancelled                 ZSET    task id -> asked, ms
--       10   chunks of the task        STREAM
-- ARGV  group, task id, result JSON without its end time, done_prefix, control channel, error text,
--       chunk limit, unfinished ms, finished ms
-- Reply: 'cancelled', 'requested', 'finished' or 'unknown'.
-- Atomic because the task may be pulled at any moment.

local group, task, result, done_prefix, control, message = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local keep = keeping(ARGV[7], ARGV[8], ARGV[9])
local now = now_ms()
even_when_full(KEYS[2])

if redis.call('HEXISTS', KEYS[4], task) == 1 then
  return 'finished'
end

local function finish(fields)
  write_result(KEYS[4], KEYS[5], task, with_spent(result, field_of(fields, 'spent')), now, done_prefix)
  redis.call('HDEL', KEYS[8], task)
  end_with_error(KEYS[10], field_of(fields, 'stream_key'), task, message, keep)
  return 'cancelled'
end

if redis.call('ZREM', KEYS[6], task) == 1 then
  local packed = redis.call('HGET', KEYS[7], task)
  redis.call('HDEL', KEYS[7], task)
  return finish(packed and unpacked(packed) or {})
end

local function find()
  local moved = redis.call('HGET', KEYS[8], task)
  if moved and moved ~= 'delayed' then
    local lane, entry = string.match(moved, '^(%d)|(.+)$')
    return tonumber(lane), entry
  end
  return 2, task
end

local lane, entry = find()
local found = redis.pcall('XRANGE', KEYS[lane], entry, entry)[1]
if not found then
  return 'unknown'
end
local pending = redis.pcall('XPENDING', KEYS[lane], group, entry, entry, 1)
if pending[1] then
  redis.call('ZADD', KEYS[9], now, task)
  redis.call('PEXPIRE', KEYS[9], keep.unfinished_ms)
  redis.call('PUBLISH', control, 'cancel ' .. task)
  return 'requested'
end
redis.call('XDEL', KEYS[lane], entry)
return finish(found[2])
