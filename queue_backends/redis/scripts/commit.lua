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
-- ARGV  1    msgpack { group, keep, retention_ms, dead_limit, done_prefix, { outcome, ... }, counter sets }
--            outcome: { kind, lane, entry, consumer, deliveries, task id, chunks KEYS index, list KEYS index or 0,
--                       first seq, chunks, is_final, records, JSON, delay_ms, attempt, next_attempt, error }
--            JSON: of ack and dead the result, of retry and release what the task has used, if known; else false
--            An ack and a checkpoint end with it, a retry and a release with next_attempt.
--            chunks, records, counter sets: see write_chunks, add_records, ledger
-- Reply: positions that are lost, from 0.
-- Atomic because result, acknowledgement, usage and final chunk of a task must appear together, exactly once.

local request = cmsgpack.unpack(ARGV[1])
local group, keep, retention_ms, dead_limit, done_prefix = request[1], request[2], request[3], request[4], request[5]
keep = { limit = keep[1], unfinished_ms = keep[2], finished_ms = keep[3] }
local now, book, lost = now_ms(), ledger(request[7]), {}
local results, ends = {}, {}
local acked = { {}, {}, {} }
local any_cancelled = redis.call('EXISTS', KEYS[10]) == 1
local any_moved = redis.call('EXISTS', KEYS[9]) == 1
even_when_full(KEYS[2])

local function leave(outcome)
  local list = acked[outcome[2]]
  list[#list + 1] = outcome[3]
end

local function finish(outcome, json)
  local task = outcome[6]
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
  local entry = redis.call('XRANGE', KEYS[outcome[2]], outcome[3], outcome[3])[1]
  return entry and entry[2]
end

local function revised(fields, outcome)
  return changed_fields(fields, {
    attempt = tostring(outcome[15]), next_attempt = tostring(outcome[16]), original_task_id = outcome[6],
    spent = outcome[13] or nil,
  })
end

local function bring_back(outcome, lane, fields, delay_ms)
  local task = outcome[6]
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
  if not any_cancelled or not redis.call('ZSCORE', KEYS[10], outcome[6]) then
    return false
  end
  local key, list = KEYS[outcome[7]], outcome[8] > 0 and KEYS[outcome[8]] or nil
  local seq = next_seq(key)
  local chunk = { task_id = outcome[6], seq = seq, type = 'ERROR', content = 'run cancelled', is_final = true }
  write_chunks(key, list, seq, { 0, cjson.encode(chunk), '' }, true, keep)
  local result = '{"result":"","error":"run cancelled","input_tokens":0,"output_tokens":0,"finished_at":%.3f}'
  finish(outcome, with_spent(string.format(result, now / 1000), outcome[13]))
  return true
end

local handlers = {}

function handlers.ack(outcome)
  finish(outcome, outcome[13])
end

function handlers.retry(outcome)
  local fields = entry_fields(outcome)
  if fields and not end_if_cancelled(outcome) then
    fields = revised(fields, outcome)
    bring_back(outcome, lane_of(fields), fields, outcome[14])
  end
end

-- Given back unfinished: it has waited before, so it goes to the front, which is the high lane.
function handlers.release(outcome)
  local fields = entry_fields(outcome)
  if fields and not end_if_cancelled(outcome) then
    fields = revised(fields, outcome)
    bring_back(outcome, 1, fields, 0)
  end
end

function handlers.dead(outcome)
  local fields = entry_fields(outcome) or {}
  redis.call('XADD', KEYS[6], 'MAXLEN', '~', dead_limit, '*',
    'task_id', outcome[3], 'prompt', field_of(fields, 'prompt') or '', 'error', outcome[17],
    'attempt', tostring(outcome[15]), 'original_task_id', outcome[6],
    'entry', cmsgpack.pack(changed_fields(fields, { next_attempt = tostring(outcome[16]) })))
  finish(outcome, outcome[13])
end

-- Whether an earlier try, whose reply got lost, has ended the task already: the result tells to the microsecond.
local function is_written(outcome)
  local json = outcome[13]
  return json and redis.call('HGET', KEYS[4], outcome[6]) == json
end

-- Chunks go first: if what has the name of a task's stream is no stream, the call ends here, and no record of the others
-- stands already without being counted.
local is_held, held = fences(KEYS, group, request[6], 2), {}
for position, outcome in ipairs(request[6]) do
  if is_held(outcome) then
    held[#held + 1] = outcome
    if #outcome[10] > 1 then
      local list = outcome[8] > 0 and KEYS[outcome[8]] or nil
      write_chunks(KEYS[outcome[7]], list, outcome[9], outcome[10], outcome[11], keep)
    end
  elseif not is_written(outcome) then
    lost[#lost + 1] = position - 1
  end
end
for _, outcome in ipairs(held) do
  add_records(book, outcome[12], now)
  if outcome[1] ~= 'checkpoint' then
    handlers[outcome[1]](outcome)
    leave(outcome)
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
settle_ledger(book, now)
if #results > 0 then
  trim(KEYS[4], KEYS[5], now - retention_ms, math.min(#results + 10, 1000))
end
return lost
