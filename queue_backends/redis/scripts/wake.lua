-- Make delayed tasks ready now. Others are left as they are.
--
-- KEYS  1-3  lanes high, normal, low   STREAM
--       4    delayed                   ZSET    task id -> due, ms
--       5    delayed entries           HASH    task id -> entry, msgpack
--       6    moved                     HASH    task id -> where its entry is
-- ARGV  task ids
-- Reply: for each, 1 if it was delayed, else 0.
-- Atomic because a delayed task must never be in both places, or in none.

local woken = {}
even_when_full(KEYS[2])
for position, id in ipairs(ARGV) do
  woken[position] = redis.call('ZSCORE', KEYS[4], id) and 1 or 0
  if woken[position] == 1 then
    make_ready(KEYS, KEYS[4], KEYS[5], KEYS[6], id)
  end
end
return woken
