-- Extend the leases of deliveries that are still their holder's.
--
-- KEYS  1-3  lanes high, normal, low   STREAM
--       4    cancelled                 ZSET    task ids whose running was asked to end
--       5    results                   HASH    task id -> result JSON
--       6-   chunks of each task       STREAM, parallel to the deliveries; then ark's lists where tasks name one
-- ARGV  1    msgpack { group, keep, { { lane, entry, consumer, deliveries, task id, chunks KEYS index, list KEYS index or 0 }, ... } }
-- Reply: { { positions that are lost, from 0 }, { task ids to cancel } }
-- Atomic because a lease that ran out between check and claim may be somebody else's already.
--
-- An operator of ark's ends a running task by XDEL, XACK and a result of its own; its consumers still need a final chunk.

local request = cmsgpack.unpack(ARGV[1])
local group, keep = request[1], keeping(unpack(request[2]))
local lost, cancelled = {}, {}
even_when_full(KEYS[2])

local function end_stream(task, chunks, list)
  local last = redis.call('XREVRANGE', chunks, '+', '-', 'COUNT', 1)[1]
  if last and cjson.decode(last[2][2]).is_final then
    return
  end
  local is_json, result = pcall(cjson.decode, redis.call('HGET', KEYS[5], task) or '{}')
  local message = is_json and type(result) == 'table' and type(result.error) == 'string' and result.error
    or 'run cancelled'
  end_with_error(chunks, list, task, message, keep)
end

for position, held in ipairs(request[3]) do
  local lane, entry = KEYS[held[1]], held[2]
  if owns(lane, group, entry, held[3], held[4]) then
    redis.call('XCLAIM', lane, group, held[3], 0, entry, 'JUSTID')
    if redis.call('ZSCORE', KEYS[4], held[5]) then
      cancelled[#cancelled + 1] = held[5]
    end
  else
    lost[#lost + 1] = position - 1
    local pending = redis.pcall('XPENDING', lane, group, entry, entry, 1)
    if pending[1] == nil and redis.call('HEXISTS', KEYS[5], held[5]) == 1 then
      end_stream(held[5], KEYS[held[6]], held[7] > 0 and KEYS[held[7]] or nil)
    end
  end
end
return { lost, cancelled }
