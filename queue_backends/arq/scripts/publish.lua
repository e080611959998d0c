-- Publish chunks of several tasks, each under its delivery's fence; an empty token means that there is none.
--
-- KEYS  ark's lists                    LIST    the text alone, where a task names one
-- ARGV  1    msgpack { names, { { lane, id, token, list KEYS index or 0, first seq, cut before, chunks,
--                                is_final }, ... } }
--            chunks: see write_chunks
-- Reply: positions that are lost, from 0.
-- Atomic because a chunk of a lost lease must not stand among those of the new owner.

local lost = {}
even_when_full(names.dead)
for position, batch in ipairs(request[2]) do
  if batch[3] == '' or owns(batch[1], batch[2], batch[3]) then
    local list, chunks = KEYS[batch[4]], batch[7]
    local many = #chunks / (list and 2 or 1)
    write_chunks(names.chunks .. batch[2], list, batch[5], batch[6], chunks, 1, many, batch[8], keep)
  else
    lost[#lost + 1] = position - 1
  end
end
return lost
