-- Publish chunks of several tasks, each under its delivery's fence; an empty entry means that there is none.
--
-- KEYS  1-3  lanes high, normal, low   STREAM
--       4-   chunks of each task       STREAM  replay of the chunks, and the channel of the same name
--            ark's lists               LIST    the text alone, where a task names one
-- ARGV  1    msgpack { group, keep, holders, batches }
--       2-   long texts (see text_of)
--            holders: see fences
--            batches: one flat list, of each: how many items it has, holder, entry or '', chunks KEYS index, list KEYS
--            index or 0, first seq, cut before, is_final, how many chunks, chunks (see write_chunks)
-- Reply: positions that are lost, from 0.
-- Atomic because a chunk of a lost lease must not stand among those of the new owner.

local request = cmsgpack.unpack(ARGV[1])
local group, keep, holders, items = request[1], keeping(unpack(request[2])), request[3], request[4]
local lost, starts, deliveries, start = {}, {}, {}, 1
while items[start] do
  starts[#starts + 1] = start
  if items[start + 2] ~= '' then
    deliveries[#deliveries + 1] = items[start + 1]
    deliveries[#deliveries + 1] = items[start + 2]
  end
  start = start + items[start]
end
local is_held = fences(KEYS, group, holders, deliveries)
even_when_full(KEYS[2])
for position, at in ipairs(starts) do
  local holder, entry, chunks, list, first_seq, cut_before, is_final, many = unpack(items, at + 1, at + 8)
  if entry == '' or is_held(holder, entry) then
    write_chunks(KEYS[chunks], KEYS[list], first_seq, cut_before, items, at + 9, many, is_final, keep)
  else
    lost[#lost + 1] = position - 1
  end
end
return lost
