-- Take over entries whose lease has run out: nobody renewed them for `lease_ms`.
--
-- KEYS  1-3  lanes high, normal, low   STREAM
--       4    cancelled                 ZSET    task ids whose running was asked to end
--       5    paused                    STRING  exists while nothing shall be delivered
--       6    reclaimer                 STRING  whose turn it is: that one's lease_ms and consumer; expires
-- ARGV  group, consumer, lease_ms, limit, when this was sent by the server's own clock in ms or 0,
--       how long a turn lasts in ms, entries that are claimed although they are the caller's own, as lane/id...
-- Reply: { the server's clock, { the caller's own that have run out, as lane/id } or nil if it did not look,
--        { lane, entry id, fields, deliveries so far, cancel asked 0/1 }, ... }
-- Atomic because the delivery count is part of the fence: it must be read in the step that claims.
--
-- A look reads all that is pending, so only one worker has the turn to do it. It may take another one when that is over,
-- and others may as well, so that nobody is waited for who is gone. Who leaves something to be claimed gives up the turn:
-- the next who asks has it. A shorter lease than the holder's finds what the holder does not, and goes before it.
--
-- The caller's own entries are not claimed unless it says so: it may be running them and about to renew them, after a
-- machine's sleep for example. XPENDING looks at all pending entries, where XAUTOCLAIM would give up after ten for each one wanted.

local group, consumer, lease_ms, limit = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local given_up = {}
for position = 7, #ARGV do
  given_up[ARGV[position]] = true
end

-- A server that stood still carries this out long after it was sent, before those who live could renew anything.
local now, sent_ms = now_ms(), tonumber(ARGV[5])
local reply = { now, {} }
if (sent_ms > 0 and now - sent_ms > lease_ms / 2) or redis.call('EXISTS', KEYS[5]) == 1 then
  return reply
end

local held_ms, holder = string.match(redis.call('GET', KEYS[6]) or '', '^(%d+) (.*)$')
if held_ms and holder ~= consumer and tonumber(held_ms) <= lease_ms then
  return { now, false }
end
even_when_full(KEYS[1])
redis.call('SET', KEYS[6], string.format('%.0f %s', lease_ms, consumer), 'PX', ARGV[6])

for lane = 1, 3 do
  if limit > 0 then
    local expired = redis.call('XPENDING', KEYS[lane], group, 'IDLE', lease_ms, '-', '+', limit + 500)
    for _, row in ipairs(expired) do
      if row[2] == consumer and not given_up[lane .. '/' .. row[1]] then
        reply[2][#reply[2] + 1] = lane .. '/' .. row[1]
      elseif limit > 0 then
        local entry = redis.call('XCLAIM', KEYS[lane], group, consumer, lease_ms, row[1])[1]
        if entry and entry[2] then
          local task = field_of(entry[2], 'original_task_id') or entry[1]
          local cancelled = redis.call('ZSCORE', KEYS[4], task) and 1 or 0
          reply[#reply + 1] = { lane, entry[1], entry[2], row[4] + 1, cancelled }
          limit = limit - 1
        else -- the entry itself was deleted: it would be found again for ever
          redis.call('XACK', KEYS[lane], group, row[1])
        end
      end
    end
  end
end
if limit == 0 or #reply[2] > 0 then
  redis.call('DEL', KEYS[6])
end
return reply
