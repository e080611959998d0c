-- Append records to logs once and count them.
--
-- KEYS  1-   logs                      HASH    record id -> value
--            their indexes             ZSET    record id -> appended, ms
--            counter sets              HASH    field -> amount
-- ARGV  1    msgpack { tallies, how many records, records }: see ledger and add_records, all in one flat list
--       2-   long texts (see text_of)
-- Reply: how many records were new.
-- Atomic because a record and its counters must appear together, or not at all.

local request = cmsgpack.unpack(ARGV[1])
local book = ledger(request[1], now_ms())
add_records(book, request[3], 1, request[2])
settle_ledger(book, request[3])
return book.added
