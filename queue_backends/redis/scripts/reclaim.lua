-- Take over entries whose lease has run out: nobody renewed them for `lease_ms`.
--
-- KEYS  1-3  lanes high, normal, low   STREAM
--       4    cancelled                 ZSET    task ids whose running was asked to end
-- ARGV  group, consumer, lease_ms, limit, cursor of each lane
-- Reply: { { next cursor, ... }, { lane, entry id, fields, deliveries so far, cancel asked 0/1 }, ... }
-- Atomic because the delivery count is part of the fence: it must be read in the step that claims.

local group, consumer, lease_ms, limit = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local reply = { {} }
for lane = 1, 3 do
  local cursor = ARGV[4 + lane]
  if limit > 0 then
    local claimed = redis.call('XAUTOCLAIM', KEYS[lane], group, consumer, lease_ms, cursor, 'COUNT', limit)
    cursor = claimed[1]
    for _, entry in ipairs(claimed[2]) do
      if entry and entry[2] then
        local pending = redis.call('XPENDING', KEYS[lane], group, entry[1], entry[1], 1)[1]
        local task = field_of(entry[2], 'original_task_id') or entry[1]
        local cancelled = redis.call('ZSCORE', KEYS[4], task) and 1 or 0
        reply[#reply + 1] = { lane, entry[1], entry[2], pending[4], cancelled }
        limit = limit - 1
      end
    end
  end
  reply[1][lane] = cursor
end
return reply
