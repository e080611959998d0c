-- Shared by all scripts: loaded in front of each of them.

-- Milliseconds by the server's clock.
local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- For scripts that bring accepted tasks forward: they go on while the server is out of memory, which stops new tasks.
-- The server refuses a script's first write if it may need memory, and no later one, so that it never stops half-way.
-- This is a first write that needs none.
local function even_when_full(stream)
  redis.call('XDEL', stream, '0-0')
end

-- The fence: whether this delivery of the entry is still its holder's. Consumer and delivery count stand in the
-- group's pending list, so that a claim by anybody (ourselves included), an XACK or an XDEL by an operator end it.
local function owns(lane, group, entry, consumer, deliveries)
  local pending = redis.pcall('XPENDING', lane, group, entry, entry, 1)
  local row = pending[1]
  return row ~= nil and row[2] == consumer and row[4] == deliveries
end

-- The fences of many deliveries, { ..., lane, entry, consumer, deliveries, ... } with the lane at `at`: a function that
-- says of one whether it is still its holder's. What ends together was mostly taken together, so that one look at the
-- holder's pending list finds nearly all of them: 0.5 µs for each instead of 2. What it misses is looked up alone.
local function fences(lanes, group, deliveries, at)
  local first, count, known = {}, { 0, 0, 0 }, { {}, {}, {} }
  for _, delivery in ipairs(deliveries) do
    local lane = delivery[at]
    first[lane] = first[lane] or delivery
    count[lane] = count[lane] + 1
  end
  for lane, delivery in pairs(first) do
    if count[lane] >= 4 then
      local rows = redis.pcall('XPENDING', lanes[lane], group, delivery[at + 1], '+', count[lane], delivery[at + 2])
      for _, row in ipairs(rows) do
        known[lane][row[1]] = row
      end
    end
  end
  return function(delivery)
    local lane, entry, consumer, count_then = unpack(delivery, at, at + 3)
    local row = known[lane][entry]
    if row then
      return row[2] == consumer and row[4] == count_then
    end
    return owns(lanes[lane], group, entry, consumer, count_then)
  end
end

-- Calls `act` with all items as its arguments, in several calls if they are more than Lua's stack takes. Pairs stay
-- together.
local function in_parts(items, act)
  for first = 1, #items, 1000 do
    act(unpack(items, first, math.min(first + 999, #items)))
  end
end

-- Where a chunk stands in its stream. Most streams are short, so the first ids are asked for again and again.
local stream_ids = {}
local function stream_id(seq)
  local id = stream_ids[seq]
  if not id then
    id = string.format('%.0f-0', seq + 1)
    stream_ids[seq] = id
  end
  return id
end

-- Whether a list has as much as it may. Short ones are bounded by the size of their items.
local function is_full(list, length)
  if length < 64 then
    return false
  end
  local bytes = redis.pcall('MEMORY', 'USAGE', list)
  return length >= 10000 or (type(bytes) == 'number' and bytes > 16777216)
end

-- Feed ark's list. Its name comes from the task: if it is no list, that is the task's own loss.
local function feed(list, text, lifetime_ms)
  local length = redis.pcall('LLEN', list)
  if type(length) == 'number' and (text == '__EOF__' or not is_full(list, length)) then
    redis.call('RPUSH', list, text)
    redis.call('PEXPIRE', list, lifetime_ms)
  end
end

-- Append chunks with the ids <seq + 1>-0, publish them, and feed ark's list where the task names one.
-- An id that exists already was written by an earlier try whose reply got lost: it is skipped.
-- chunks: { seq, json, text, json, text, ... }: if the seq is not 0, chunks before it go, because the stream has reached
-- its cap in bytes; the texts are for ark's list.
local function write_chunks(key, list, first_seq, chunks, is_final, keep)
  if chunks[1] > 0 then
    redis.call('XTRIM', key, 'MINID', stream_id(chunks[1]))
  end
  local seq = first_seq
  for at = 2, #chunks, 2 do
    local json, text = chunks[at], chunks[at + 1]
    local added = redis.pcall('XADD', key, 'MAXLEN', '~', keep.limit, stream_id(seq), 'chunk', json)
    seq = seq + 1
    if type(added) == 'string' then
      redis.call('PUBLISH', key, json)
      if list and text ~= '' then
        feed(list, text, keep.unfinished_ms)
      end
    elseif not string.find(added.err, 'equal or smaller', 1, true) then
      error(added.err)
    end
  end
  if is_final then
    redis.call('PEXPIRE', key, keep.finished_ms)
    if list then
      feed(list, '__EOF__', 300000)
    end
  elseif first_seq == 0 or first_seq % 32 + seq - first_seq >= 32 then
    redis.call('PEXPIRE', key, keep.unfinished_ms)
  end
end

-- The seq that the next chunk of a stream gets.
local function next_seq(key)
  local last = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
  return last and tonumber(string.match(last[1], '^(%d+)')) or 0
end

-- Collects records and counters of one call, so that a counter that many records share is written once.
-- sets: lists of KEYS indexes: the counter sets to which records add the same
local function ledger(sets)
  return { added = 0, logs = {}, sums = {}, sets = sets }
end

-- A new record takes its place in its log. Records of the same millisecond keep their order: each is a thousandth later
-- than the one before.
local function note_order(book, log, index, id, keep_ms, now)
  local kept = book.logs[log]
  if not kept then
    local last = redis.call('ZREVRANGE', index, 0, 0, 'WITHSCORES')[2]
    kept = { index = index, last = tonumber(last or 0), is_new = not last, members = {} }
    book.logs[log] = kept
  end
  local members = kept.members
  kept.keep_ms, kept.last = keep_ms, math.max(now, kept.last + 0.001)
  members[#members + 1] = kept.last
  members[#members + 1] = id
end

-- counts: { which of the ledger's sets, { field = amount, ... }, ... }
local function count(book, counts, keep_ms)
  for at = 1, #counts, 2 do
    local sums = book.sums[counts[at]]
    if not sums then
      sums = { keep_ms = keep_ms, fields = {} }
      book.sums[counts[at]] = sums
    end
    local fields = sums.fields
    for field, amount in pairs(counts[at + 1]) do
      fields[field] = (fields[field] or 0) + amount
    end
  end
end

-- records: { log KEYS index, index KEYS index, id, value, keep_ms, counts or false, log KEYS index, ... }
local function add_records(book, records, now)
  for at = 1, #records, 6 do
    local log, index, id, value, keep_ms, counts = unpack(records, at, at + 5)
    if redis.call('HSETNX', KEYS[log], id, value) == 1 then
      book.added = book.added + 1
      note_order(book, KEYS[log], KEYS[index], id, keep_ms, now)
      if counts then
        count(book, counts, keep_ms)
      end
    end
  end
end

-- Drop what has outlived its time: at most a little more than what came in, so that a call stays short.
local function trim(hash, index, before, most)
  local old = redis.call('ZRANGEBYSCORE', index, '-inf', before, 'LIMIT', 0, most)
  if #old > 0 then
    redis.call('HDEL', hash, unpack(old))
    redis.call('ZREM', index, unpack(old))
  end
end

-- What is to be added to each counter set: several of the ledger's lists may name it.
local function totals_of(book)
  local totals = {}
  for set, sums in pairs(book.sums) do
    for _, name in ipairs(book.sets[set]) do
      local total = totals[KEYS[name]]
      if not total then
        total = { keep_ms = sums.keep_ms, fields = {} }
        totals[KEYS[name]] = total
      end
      for field, amount in pairs(sums.fields) do
        total.fields[field] = (total.fields[field] or 0) + amount
      end
    end
  end
  return totals
end

local function settle_ledger(book, now)
  for log, kept in pairs(book.logs) do
    in_parts(kept.members, function(...)
      redis.call('ZADD', kept.index, ...)
    end)
    if not kept.is_new then
      trim(log, kept.index, now - kept.keep_ms, math.min(#kept.members + 10, 1000))
    end
    redis.call('PEXPIRE', log, kept.keep_ms)
    redis.call('PEXPIRE', kept.index, kept.keep_ms)
  end
  for counter, total in pairs(totals_of(book)) do
    for field, amount in pairs(total.fields) do
      redis.call('HINCRBY', counter, field, string.format('%.0f', amount))
    end
    redis.call('PEXPIRE', counter, total.keep_ms)
  end
end

-- A task's result becomes readable, and whoever waits for it is woken.
local function write_result(results, expiry, id, json, now, done_prefix)
  redis.call('HSET', results, id, json)
  redis.call('ZADD', expiry, now, id)
  redis.call('PUBLISH', done_prefix .. id, json)
end

-- A result with what the task had used by then, as its entry's `spent` tells.
local function with_spent(result, spent)
  local known, used = pcall(cjson.decode, spent or '')
  if not known or type(used) ~= 'table' then
    return result
  end
  local merged = cjson.decode(result)
  for name, value in pairs(used) do
    merged[name] = value
  end
  return cjson.encode(merged)
end

-- Fields of an entry as a flat list, with some replaced (a value) or removed (false).
local function changed_fields(fields, changes)
  local flat = {}
  for position = 1, #fields, 2 do
    if changes[fields[position]] == nil then
      flat[#flat + 1] = fields[position]
      flat[#flat + 1] = fields[position + 1]
    end
  end
  for name, value in pairs(changes) do
    if value then
      flat[#flat + 1] = name
      flat[#flat + 1] = value
    end
  end
  return flat
end

local function field_of(fields, name)
  for position = 1, #fields, 2 do
    if fields[position] == name then
      return fields[position + 1]
    end
  end
  return nil
end

-- The lane that an entry's own priority asks for: 1 high, 2 normal, 3 low.
local function lane_of(fields)
  local priority = field_of(fields, 'priority')
  return priority == 'high' and 1 or priority == 'low' and 3 or 2
end

-- Fields of an entry that a script has packed; nil if it is anything else, because somebody else wrote there.
local function unpacked(packed)
  local ok, fields = pcall(cmsgpack.unpack, packed)
  if not ok or type(fields) ~= 'table' or #fields == 0 or #fields % 2 == 1 or #fields > 4000 then
    return nil
  end
  for _, text in ipairs(fields) do
    if type(text) ~= 'string' then
      return nil
    end
  end
  return fields
end

-- A delayed task becomes ready: its entry goes from `delayed` and `entries` into the lane of its priority. What cannot
-- be read becomes an entry that says so, and whoever reads it refuses it with the reason.
local function make_ready(lanes, delayed, entries, moved, id)
  local packed = redis.call('HGET', entries, id)
  redis.call('ZREM', delayed, id)
  redis.call('HDEL', entries, id)
  local fields = packed and unpacked(packed)
  if not fields then
    local reason = packed and 'its delayed entry cannot be read: it must be a msgpack array of names and values'
      or 'it was delayed, and its entry is no longer there: submit the task again'
    fields = { 'original_task_id', id, 'unreadable', reason }
  end
  local lane = lane_of(fields)
  redis.call('HSET', moved, id, lane .. '|' .. redis.call('XADD', lanes[lane], '*', unpack(fields)))
end
