-- Append records to logs once and count them.
--
-- KEYS  1-   logs                      HASH    record id -> value
--            their indexes             ZSET    record id -> appended, ms
--            counter sets              HASH    field -> amount
-- ARGV  1    msgpack { record, ... }
-- Reply: how many records were new.
-- Atomic because a record and its counters must appear together, or not at all.

local now, book = now_ms(), ledger()
for _, record in ipairs(cmsgpack.unpack(ARGV[1])) do
  add_record(book, record, now)
end
settle_ledger(book, now)
return book.added
