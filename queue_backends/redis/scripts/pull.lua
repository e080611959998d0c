-- Take ready tasks without waiting: first make delayed ones ready that are due, then read high, normal, low.
--
-- KEYS  1-3  lanes high, normal, low   STREAM
--       4    delayed                   ZSET    task id -> due, ms
--       5    delayed entries           HASH    task id -> entry, msgpack
--       6    moved                     HASH    task id -> where its entry is
--       7    paused                    STRING  exists while nothing shall be delivered
-- ARGV  group, consumer, limit
-- Reply: { paused 0/1, ms until the next delayed task is due or -1, XREADGROUP's reply, ... }
-- Atomic because a delayed task must never be in both places, or in none.

local group, consumer, limit = ARGV[1], ARGV[2], tonumber(ARGV[3])
if redis.call('EXISTS', KEYS[7]) == 1 then
  return { 1, -1 }
end

local next_due = -1
local head = redis.call('ZRANGE', KEYS[4], 0, 0, 'WITHSCORES')
if head[1] then
  local now = now_ms()
  if tonumber(head[2]) <= now then
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', now, 'LIMIT', 0, 200)) do
      make_ready(KEYS, KEYS[4], KEYS[5], KEYS[6], id)
    end
    head = redis.call('ZRANGE', KEYS[4], 0, 0, 'WITHSCORES')
  end
  next_due = head[1] and math.max(0, math.ceil(tonumber(head[2]) - now)) or -1
end

local reply = { 0, next_due }
for lane = 1, 3 do
  if limit > 0 then
    local read = redis.call('XREADGROUP', 'GROUP', group, consumer, 'COUNT', limit, 'STREAMS', KEYS[lane], '>')
    if read and read[1] then
      limit = limit - #read[1][2]
      reply[#reply + 1] = read[1]
    end
  end
end
return reply
