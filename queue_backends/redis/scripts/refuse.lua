-- An entry cannot be read: to the dead letters with the reason, under the fence.
--
-- KEYS  1    its lane                  STREAM
--       2    results                   HASH    task id -> result JSON
--       3    results' expiry           ZSET    task id -> ended, ms
--       4    dead letters              STREAM
--       5    moved                     HASH    task id -> where its entry is
--       6    chunks of the task        STREAM
-- ARGV  group, consumer, deliveries, entry id, task id, error, result JSON, done_prefix, dead limit,
--       chunk limit, unfinished ms, finished ms
-- Reply: 1, or 0 if the lease is lost.
-- Atomic because a letter without its result, or the other way round, would be half a death.

local group, entry, task, message = ARGV[1], ARGV[4], ARGV[5], ARGV[6]
local keep = keeping(ARGV[10], ARGV[11], ARGV[12])
if not owns(KEYS[1], group, entry, ARGV[2], tonumber(ARGV[3])) then
  return 0
end
even_when_full(KEYS[1])

-- A letter keeps its entry whole up to a megabyte, or else the beginning of each field: such a one cannot be requeued.
local function shortened(fields)
  local size, beginnings = 0, {}
  for position, text in ipairs(fields) do
    size = size + #text
    beginnings[position] = position <= 200 and string.sub(text, 1, 1000) or nil
  end
  if size <= 1048576 then
    return fields, false
  end
  return beginnings, true
end

local found = redis.call('XRANGE', KEYS[1], entry, entry)[1]
local fields = found and found[2] or {}
local prompt = string.sub(field_of(fields, 'prompt') or '', 1, 1000)
local kept, is_cut = shortened(fields)
redis.call('XADD', KEYS[4], 'MAXLEN', '~', ARGV[9], '*', 'task_id', entry, 'prompt', prompt, 'error', message,
  'attempt', string.sub(field_of(fields, 'attempt') or '0', 1, 100), 'original_task_id', task,
  'entry', cmsgpack.pack(kept), unpack(is_cut and { 'cut', '1' } or {}))
redis.call('XACK', KEYS[1], group, entry)
redis.call('XDEL', KEYS[1], entry)
redis.call('HDEL', KEYS[5], task)
write_result(KEYS[2], KEYS[3], task, ARGV[7], now_ms(), ARGV[8])
end_with_error(KEYS[6], field_of(fields, 'stream_key'), task, message, keep)
return 1
