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

-- The fences of many deliveries, { holder, entry, holder, entry, ... }: a function that says of one whether it is still
-- its holder's. holders: { { lane, consumer, deliveries }, ... }. What ends together was mostly taken together, so that
-- one look at a holder's pending list finds nearly all of them: 0.5 µs for each instead of 2. What it misses is looked up
-- alone.
local function fences(lanes, group, holders, deliveries)
  local first, count, known = {}, {}, { {}, {}, {} }
  for at = 1, #deliveries, 2 do
    local holder = deliveries[at]
    first[holder] = first[holder] or deliveries[at + 1]
    count[holder] = (count[holder] or 0) + 1
  end
  for holder, entry in pairs(first) do
    if count[holder] >= 4 then
      local lane, consumer = unpack(holders[holder])
      for _, row in ipairs(redis.pcall('XPENDING', lanes[lane], group, entry, '+', count[holder], consumer)) do
        known[lane][row[1]] = row
      end
    end
  end
  return function(holder, entry)
    local lane, consumer, deliveries_then = unpack(holders[holder])
    local row = known[lane][entry]
    if row then
      return row[2] == consumer and row[4] == deliveries_then
    end
    return owns(lanes[lane], group, entry, consumer, deliveries_then)
  end
end

-- Calls `act` with all items as its arguments, in several calls if they are more than Lua's stack takes. Pairs stay
-- together.
local function in_parts(items, act)
  for first = 1, #items, 1000 do
    act(unpack(items, first, math.min(first + 999, #items)))
  end
end

-- A text of a request: a long one is an argument of its own, and the request has its number in ARGV. What is unpacked is
-- copied and hashed once more, a microsecond for each kilobyte or two.
local function text_of(item)
  return ARGV[item] or item -- no text is a position: positions are numbers
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

-- How chunks are kept: at most so many, so many ms while more may come, and after the final one.
local function keeping(limit, unfinished_ms, finished_ms)
  return { limit = tonumber(limit), unfinished_ms = unfinished_ms, finished_ms = finished_ms }
end

-- Append chunks with the ids <seq + 1>-0, publish them, and feed ark's list where the task names one.
-- An id that exists already was written by an earlier try whose reply got lost: it is skipped.
-- cut_before: if it is not 0, chunks before that seq go, because the stream has reached its cap in bytes
-- items: from `at` on `many` times the JSON of a chunk (see text_of), and if there is a list, its text for that
local function write_chunks(key, list, first_seq, cut_before, items, at, many, is_final, keep)
  if cut_before > 0 then
    redis.call('XTRIM', key, 'MINID', stream_id(cut_before))
  end
  local behind, stride = first_seq + many, list and 2 or 1
  for seq = first_seq, behind - 1 do
    local json, added = text_of(items[at]), nil
    if seq < keep.limit then -- a stream has no more chunks than it was given: this spares 4 of 19 thousand instructions
      added = redis.pcall('XADD', key, stream_id(seq), 'chunk', json)
    else
      added = redis.pcall('XADD', key, 'MAXLEN', '~', keep.limit, stream_id(seq), 'chunk', json)
    end
    if type(added) == 'string' then
      redis.call('PUBLISH', key, json)
      if list and items[at + 1] ~= '' then
        feed(list, items[at + 1], keep.unfinished_ms)
      end
    elseif not string.find(added.err, 'equal or smaller', 1, true) then
      error(added.err)
    end
    at = at + stride
  end
  if is_final then
    redis.call('PEXPIRE', key, keep.finished_ms)
    if list then
      feed(list, '__EOF__', 300000)
    end
  elseif first_seq == 0 or first_seq % 32 + many >= 32 then
    redis.call('PEXPIRE', key, keep.unfinished_ms)
  end
end

-- The seq that the next chunk of a stream gets.
local function next_seq(key)
  local last = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
  return last and tonumber(string.match(last[1], '^(%d+)')) or 0
end

-- A task's stream ends with an error that no worker wrote.
local function end_with_error(key, list, task, message, keep)
  local seq = next_seq(key)
  local chunk = cjson.encode({ task_id = task, seq = seq, type = 'ERROR', content = message, is_final = true })
  write_chunks(key, list, seq, 0, { chunk, '' }, 1, 1, true, keep)
end

-- Collects records and counters of one call, so that what many records share is written once.
-- tallies: { counter sets by their KEYS indexes, fields that records add to each of them, the next sets, ... }
local function ledger(tallies, now)
  return { added = 0, logs = {}, sums = {}, tallies = tallies, now = now, heads = {} }
end

-- A log that is nothing but its last record stands at the log's own name as one text: `<appended, ms> <length of the
-- id> <id><value>`. Here it becomes a log that can grow.
local function unfold(log, index)
  local whole = redis.pcall('GET', log)
  if type(whole) ~= 'string' then
    if whole then
      redis.call('HGET', log, '') -- a hash without its index; anything else is refused here, before anything is written
    end
    return nil
  end
  local at, length, rest = string.match(whole, '^(%d+) (%d+) (.*)$')
  local id, left_ms = string.sub(rest, 1, length), redis.call('PTTL', log)
  redis.call('DEL', log)
  redis.call('HSET', log, id, string.sub(rest, length + 1))
  redis.call('ZADD', index, at, id)
  if left_ms >= 0 then -- an operator may have had it stay
    redis.call('PEXPIRE', log, left_ms)
    redis.call('PEXPIRE', index, left_ms)
  end
  return at
end

-- What this call knows of a log, and adds to it.
local function opened(book, log, index)
  local kept = book.logs[log]
  if not kept then
    local last = redis.call('ZREVRANGE', index, 0, 0, 'WITHSCORES')[2] or unfold(log, index)
    kept = { index = index, last = tonumber(last or 0), is_new = not last, members = {}, fields = {}, counts = {} }
    book.logs[log] = kept
  end
  return kept
end

-- The only record of a log that ends with it, as nearly every journal is: one write instead of five. Says whether it is.
local function append_whole(book, log, id, value, keep_ms)
  local head = book.heads[#id] or string.format('%.0f %.0f ', book.now, #id)
  book.heads[#id] = head
  return redis.call('SET', log, head .. id .. value, 'PX', keep_ms, 'NX') ~= false
end

-- counts: items[first] to items[last]: of each tally that counts a record its number, then what to add to its fields
local function count(book, items, first, last, keep_ms)
  while first <= last do
    local tally, fields = items[first], #book.tallies[2 * items[first]]
    local sums = book.sums[tally] or { keep_ms = keep_ms }
    book.sums[tally] = sums
    for field = 1, fields do
      sums[field] = (sums[field] or 0) + items[first + field]
    end
    first = first + 1 + fields
  end
end

-- records: `many` times, from items[at] on: log KEYS index, index KEYS index, id, value (see text_of), keep_ms, whether
-- the log ends with it, how many items follow that count it
-- Records of the same millisecond keep their order: each is a thousandth later than the one before.
local function add_records(book, items, at, many)
  for _ = 1, many do
    local log, index, id, value, keep_ms, is_last, counts = unpack(items, at, at + 6)
    local first, last = at + 7, at + 6 + counts
    log, value, at = KEYS[log], text_of(value), last + 1
    if is_last and keep_ms > 0 and not book.logs[log] and append_whole(book, log, id, value, keep_ms) then
      book.added = book.added + 1
      count(book, items, first, last, keep_ms)
    else
      local kept = opened(book, log, KEYS[index])
      kept.last = math.max(book.now, kept.last + 0.001)
      local members, fields, counted = kept.members, kept.fields, kept.counts
      members[#members + 1], fields[#fields + 1] = kept.last, id
      members[#members + 1], fields[#fields + 1] = id, value
      counted[#counted + 1], counted[#counted + 2] = first, last
    end
  end
end

-- Records go into their log, unless it has them: mostly all of them are new, as the index tells.
local function write_records(book, items, log, kept)
  local members, fields, counts, added = kept.members, kept.fields, kept.counts, 0
  in_parts(members, function(...)
    added = added + redis.call('ZADD', kept.index, 'NX', ...)
  end)
  local are_new = 2 * added == #fields
  if are_new then
    in_parts(fields, function(...)
      redis.call('HSET', log, ...)
    end)
  end
  for at = 1, #fields, 2 do
    if are_new or redis.call('HSETNX', log, fields[at], fields[at + 1]) == 1 then
      kept.keep_ms = items[counts[at] - 3] -- the newest one's
      book.added = book.added + 1
      count(book, items, counts[at], counts[at + 1], kept.keep_ms)
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

-- What is to be added to each counter set: several tallies may name it.
local function totals_of(book)
  local totals = {}
  for tally, sums in pairs(book.sums) do
    local fields = book.tallies[2 * tally]
    for _, set in ipairs(book.tallies[2 * tally - 1]) do
      local total = totals[KEYS[set]] or { keep_ms = sums.keep_ms, fields = {} }
      totals[KEYS[set]] = total
      for position, field in ipairs(fields) do
        total.fields[field] = (total.fields[field] or 0) + sums[position]
      end
    end
  end
  return totals
end

local function settle_ledger(book, items)
  for log, kept in pairs(book.logs) do
    write_records(book, items, log, kept)
    if kept.keep_ms then -- it has grown
      if not kept.is_new then
        trim(log, kept.index, book.now - kept.keep_ms, math.min(#kept.members + 10, 1000))
      end
      redis.call('PEXPIRE', log, kept.keep_ms)
      redis.call('PEXPIRE', kept.index, kept.keep_ms)
    end
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
