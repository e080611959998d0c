-- Bring a dead letter back under its old id, with no failures on its account. Its model calls are numbered on.
--
-- KEYS  1-3  lanes high, normal, low   STREAM
--       4    results                   HASH    task id -> result JSON
--       5    results' expiry           ZSET    task id -> ended, ms
--       6    dead letters              STREAM
--       7    moved                     HASH    task id -> where its entry is
--       8    chunks of the task        STREAM  starts anew
-- ARGV  letter id, task id
-- Reply: 1, or 0 if there is no such letter, or none that could run again.
-- Atomic because two operators may press the button at once.

local letter = redis.call('XRANGE', KEYS[6], ARGV[1], ARGV[1])[1]
if not letter then
  return 0
end
local packed, prompt = field_of(letter[2], 'entry'), field_of(letter[2], 'prompt')
local fields = packed and unpacked(packed) or not packed and prompt and { 'prompt', prompt }
if not fields or field_of(letter[2], 'cut') then -- there is not enough of it left to run
  return 0
end
redis.call('XDEL', KEYS[6], ARGV[1])
fields = changed_fields(fields, { attempt = false, original_task_id = ARGV[2] })
redis.call('HDEL', KEYS[4], ARGV[2])
redis.call('ZREM', KEYS[5], ARGV[2])
redis.call('DEL', KEYS[8])
local lane = lane_of(fields)
redis.call('HSET', KEYS[7], ARGV[2], lane .. '|' .. redis.call('XADD', KEYS[lane], '*', unpack(fields)))
return 1
