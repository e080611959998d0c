-- Group commit: carry out how any number of runs ended, or how far they have come, each under its delivery's fence.
--
-- KEYS  1-3  lanes high, normal, low   STREAM
--       4    results                   HASH    task id -> result JSON
--       5    results' expiry           ZSET    task id -> ended, ms
--       6    dead letters              STREAM
--       7    delayed                   ZSET    task id -> due, ms
--       8    delayed entries           HASH    task id -> entry, msgpack
--       9    moved                     HASH    task id -> where its entry is, if not under its own id
--       10   cancelled                 ZSET    task ids whose running was asked to end
--       11-  chunks, ark's lists, logs, indexes and counter sets, as the outcomes name them
-- ARGV  1    msgpack { group, keep, retention_ms, dead_limit, done_prefix, holders, tallies, outcomes }
--       2-   long texts (see text_of)
--            holders: see fences; tallies: see ledger
--            outcomes: one flat list (each table of its own would cost as much as a command), of each outcome:
--              1-7    how many items it has, kind, holder, entry, task id or false if it is the entry's, JSON, chunks
--                     KEYS index
--              8-13   list KEYS index or 0, first seq, cut before, is_final, how many chunks, how many records
--              14-    chunks (see write_chunks), then records (see add_records)
--              last   of retry, release and dead: delay_ms, attempt, next_attempt, error
--            JSON: of ack and dead the result, of retry and release what the task has used, if known; else false; see
--            text_of
-- Reply: positions that are lost, from 0.
-- Atomic because result, acknowledgement, usage and final chunk of a task must appear together, exactly once.

local request = cmsgpack.unpack(ARGV[1])
local group, retention_ms, dead_limit, done_prefix = request[1], request[3], request[4], request[5]
local holders, items, keep = request[6], request[8], keeping(unpack(request[2]))
local now, lost = now_ms(), {}
local book = ledger(request[7], now)
local results, ends = {}, {}
local acked = { {}, {}, {} }
local any_cancelled = redis.call('EXISTS', KEYS[10]) == 1
local any_moved = redis.call('EXISTS', KEYS[9]) == 1
even_when_full(KEYS[2])

local function finish(task, json)
  results[#results + 1], ends[#ends + 1] = task, now
  results[#results + 1], ends[#ends + 1] = json, task
  redis.call('PUBLISH', done_prefix .. task, json)
  if any_moved then
    redis.call('HDEL', KEYS[9], task)
  end
  if any_cancelled then
    redis.call('ZREM', KEYS[10], task)
  end
end

local function entry_fields(outcome)
  local entry = redis.call('XRANGE', KEYS[outcome.lane], outcome.entry, outcome.entry)[1]
  return entry and entry[2]
end

local function revised(fields, outcome)
  return changed_fields(fields, {
    attempt = tostring(outcome.attempt), next_attempt = tostring(outcome.next_attempt), original_task_id = outcome.task,
    spent = outcome.json or nil,
  })
end

local function bring_back(task, lane, fields, delay_ms)
  any_moved = true
  if delay_ms > 0 then
    redis.call('ZADD', KEYS[7], now + delay_ms, task)
    redis.call('HSET', KEYS[8], task, cmsgpack.pack(fields))
    redis.call('HSET', KEYS[9], task, 'delayed')
  else
    redis.call('HSET', KEYS[9], task, lane .. '|' .. redis.call('XADD', KEYS[lane], '*', unpack(fields)))
  end
end

-- A run that was asked to end, and failed or was given back instead: it ends here, whatever its worker had in mind.
local function end_if_cancelled(outcome)
  if not any_cancelled or not redis.call('ZSCORE', KEYS[10], outcome.task) then
    return false
  end
  end_with_error(outcome.chunks, outcome.list, outcome.task, 'run cancelled', keep)
  local result = '{"result":"","error":"run cancelled","input_tokens":0,"output_tokens":0,"finished_at":%.3f}'
  finish(outcome.task, with_spent(string.format(result, now / 1000), outcome.json))
  return true
end

local handlers = {}

function handlers.retry(outcome)
  local fields = entry_fields(outcome)
  if fields and not end_if_cancelled(outcome) then
    fields = revised(fields, outcome)
    bring_back(outcome.task, lane_of(fields), fields, outcome.delay_ms)
  end
end

-- Given back unfinished: it has waited before, so it goes to the front, which is the high lane.
function handlers.release(outcome)
  local fields = entry_fields(outcome)
  if fields and not end_if_cancelled(outcome) then
    bring_back(outcome.task, 1, revised(fields, outcome), 0)
  end
end

function handlers.dead(outcome)
  local fields = entry_fields(outcome) or {}
  redis.call('XADD', KEYS[6], 'MAXLEN', '~', dead_limit, '*',
    'task_id', outcome.entry, 'prompt', field_of(fields, 'prompt') or '', 'error', outcome.error,
    'attempt', tostring(outcome.attempt), 'original_task_id', outcome.task,
    'entry', cmsgpack.pack(changed_fields(fields, { next_attempt = tostring(outcome.next_attempt) })))
  finish(outcome.task, outcome.json)
end

-- What the handlers look at. An ack, which is nearly every outcome, does without.
local function outcome_at(at, lane, entry, task, json)
  local size, chunks, list = items[at], unpack(items, at + 6, at + 7)
  local delay_ms, attempt, next_attempt, message = unpack(items, at + size - 4, at + size - 1)
  return {
    lane = lane, entry = entry, task = task, json = json, chunks = KEYS[chunks], list = KEYS[list],
    delay_ms = delay_ms, attempt = attempt, next_attempt = next_attempt, error = message,
  }
end

-- Whether an earlier try, whose reply got lost, has ended the task already: the result tells to the microsecond.
local function is_written(task, json)
  return json and redis.call('HGET', KEYS[4], task) == json
end

local starts, deliveries, start = {}, {}, 1
while items[start] do
  starts[#starts + 1] = start
  deliveries[#deliveries + 1] = items[start + 2]
  deliveries[#deliveries + 1] = items[start + 3]
  start = start + items[start]
end
local is_held, held = fences(KEYS, group, holders, deliveries), {}

-- Chunks go first, then records: if what has the name of a task's stream is no stream, or that of a log no log, the call
-- ends here, and none of the others has ended already without its records, or come back while it is still held.
for position, at in ipairs(starts) do
  local holder, entry, task, json, chunks, list, first_seq, cut_before, is_final, many = unpack(items, at + 2, at + 11)
  if is_held(holder, entry) then
    held[#held + 1] = at
    if many > 0 then
      write_chunks(KEYS[chunks], KEYS[list], first_seq, cut_before, items, at + 13, many, is_final, keep)
    end
  elseif not is_written(task or entry, text_of(json)) then
    lost[#lost + 1] = position - 1
  end
end
for _, at in ipairs(held) do
  local many, records = unpack(items, at + 11, at + 12)
  add_records(book, items, at + 13 + many * (items[at + 7] > 0 and 2 or 1), records)
end
for _, at in ipairs(held) do
  local kind, holder, entry, task, json = unpack(items, at + 1, at + 5)
  task, json = task or entry, text_of(json)
  local lane = holders[holder][1]
  if kind == 'ack' then
    finish(task, json)
  elseif kind ~= 'checkpoint' then
    handlers[kind](outcome_at(at, lane, entry, task, json))
  end
  if kind ~= 'checkpoint' then
    acked[lane][#acked[lane] + 1] = entry
  end
end

in_parts(results, function(...)
  redis.call('HSET', KEYS[4], ...)
end)
in_parts(ends, function(...)
  redis.call('ZADD', KEYS[5], ...)
end)
for lane = 1, 3 do
  in_parts(acked[lane], function(...)
    redis.call('XACK', KEYS[lane], group, ...)
    redis.call('XDEL', KEYS[lane], ...)
  end)
end
settle_ledger(book, items)
if #results > 0 then
  trim(KEYS[4], KEYS[5], now - retention_ms, math.min(#results + 10, 1000))
end
return lost
