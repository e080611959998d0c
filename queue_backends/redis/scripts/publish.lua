-- Publish chunks of several tasks, each under its delivery's fence; an empty consumer means that there is none.
--
-- KEYS  1-3  lanes high, normal, low   STREAM
--       4-   chunks of each task       STREAM  replay of the chunks, and the channel of the same name
--            ark's lists               LIST    the text alone, where a task names one
-- ARGV  1    msgpack { group, keep, { { lane, entry, consumer, deliveries, chunks KEYS index, list KEYS index or 0,
--                                       first seq, chunks, is_final }, ... } }; chunks: see write_chunks
-- Reply: positions that are lost, from 0.
-- Atomic because a chunk of a lost lease must not stand among those of the new owner.

local request = cmsgpack.unpack(ARGV[1])
local group, keep = request[1], request[2]
keep = { limit = keep[1], unfinished_ms = keep[2], finished_ms = keep[3] }
local lost, is_held = {}, fences(KEYS, group, request[3], 1)
even_when_full(KEYS[2])
for position, batch in ipairs(request[3]) do
  if batch[3] == '' or is_held(batch) then
    local list = batch[6] > 0 and KEYS[batch[6]] or nil
    write_chunks(KEYS[batch[5]], list, batch[7], batch[8], batch[9], keep)
  else
    lost[#lost + 1] = position - 1
  end
end
return lost
