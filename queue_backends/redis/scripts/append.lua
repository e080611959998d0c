-- Append records to logs once and count them, under the fence of a delivery if one is given.
--
-- KEYS  1-3  lanes high, normal, low   STREAM
--       4-   logs                      HASH    record id -> value
--            their indexes             ZSET    record id -> appended, ms
--            counter sets              HASH    field -> amount
-- ARGV  1    msgpack { group, { lane, entry, consumer, deliveries } or false, { record, ... } }
-- Reply: how many records were new, or -1 if the lease is lost.
-- Atomic because a record and its counters must appear together, or not at all.

local request = cmsgpack.unpack(ARGV[1])
local fence = request[2]
if fence and not owns(KEYS[fence[1]], request[1], fence[2], fence[3], fence[4]) then
  return -1
end
local now, book = now_ms(), ledger()
for _, record in ipairs(request[3]) do
  add_record(book, record, now)
end
settle_ledger(book, now)
return book.added
