-- Append records to logs once and count them.
--
-- KEYS  1-   logs                      HASH    record id -> value
--            their indexes             ZSET    record id -> appended, ms
--            counter sets              HASH    field -> amount
-- ARGV  1    msgpack { records, counter sets }: see add_records and ledger
-- Reply: how many records were new.
-- Atomic because a record and its counters must appear together, or not at all.

local request = cmsgpack.unpack(ARGV[1])
local now, book = now_ms(), ledger(request[2])
add_records(book, request[1], now)
settle_ledger(book, now)
return book.added
