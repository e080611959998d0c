-- Group commit: carry out how any number of runs ended, or how far they have come, each under its delivery's fence.
--
-- KEYS  ark's lists, logs, indexes and counter sets, as the outcomes name them
-- ARGV  1    msgpack { names, { outcome, ... }, tallies, records }
--            tallies, records: see ledger, add_records
--            outcome: { kind, lane, id, token, list KEYS index or 0, first seq, cut before, chunks, is_final,
--                       payload, delay_ms, attempt, next_attempt, how many records, where they begin }
--            chunks: see write_chunks
--            kind and payload: ack, the ending (see write_end); dead, the ending, then error and prompt; retry,
--            postpone and release, what the task has used as JSON, or nothing; checkpoint, nothing
-- Reply: positions that are lost, from 0.
-- Atomic because result, queue, usage and final chunk of a task must change together, exactly once.

local now, lost, ended, ready = now_ms(), {}, 0, 0
local book, records = ledger(request[3], now), request[4]
local any_abort = redis.call('EXISTS', names.abort) == 1
even_when_full(names.dead)

-- A run that was asked to end, and failed or was given back instead: it ends here, whatever its worker had in mind.
local function end_if_cancelled(outcome)
  if not any_abort or not redis.call('ZSCORE', names.abort, outcome[3]) then
    return false
  end
  end_cancelled(outcome[2], outcome[3], outcome[10][1], now)
  return true
end

local function give_back(outcome, score)
  local lane, id, run = outcome[2], outcome[3], names.runs .. outcome[3]
  redis.call('HSET', run, 'next_attempt', string.format('%.0f', outcome[13]))
  redis.call('HDEL', run, 'token', 'crashes')
  if outcome[10][1] then
    redis.call('HSET', run, 'spent', outcome[10][1])
  end
  redis.call('PEXPIRE', run, string.format('%.0f', keep.unfinished_ms + outcome[11]))
  redis.call('EXPIRE', names.retry .. id, string.format('%.0f', names.retry_s + outcome[11] / 1000))
  redis.call('DEL', names.progress .. id)
  redis.call('ZREM', names.running, id)
  redis.call('ZADD', names.lanes[lane], score, id)
end

local handlers = {}

function handlers.ack(outcome)
  write_end(outcome[2], outcome[3], outcome[10], now, true)
  ended = ended + 1
end

function handlers.retry(outcome)
  if not end_if_cancelled(outcome) then
    give_back(outcome, string.format('%.0f', now + outcome[11]))
    ready = ready + (outcome[11] > 0 and 0 or 1)
  end
end

-- Has to wait, though nothing failed: its try does not count. It was started in time, so that it outlives the moment
-- after which its engine would not have had it started.
function handlers.postpone(outcome)
  if not end_if_cancelled(outcome) then
    local job, lasts_ms = names.job .. outcome[3], keep.unfinished_ms + outcome[11]
    local left_ms = redis.call('PTTL', job)
    if left_ms >= 0 and left_ms < lasts_ms then
      redis.call('PEXPIRE', job, string.format('%.0f', lasts_ms))
    end
    give_back(outcome, string.format('%.0f', now + outcome[11]))
    redis.call('DECR', names.retry .. outcome[3])
    ready = ready + (outcome[11] > 0 and 0 or 1)
  end
end

-- Given back unfinished: it has waited before, so it goes to the front, and its try does not count.
function handlers.release(outcome)
  if not end_if_cancelled(outcome) then
    local score = redis.call('HGET', names.runs .. outcome[3], 'score') or string.format('%.0f', now)
    give_back(outcome, score)
    redis.call('ZADD', names.front, score, outcome[3])
    redis.call('DECR', names.retry .. outcome[3])
    ready = ready + 1
  end
end

function handlers.dead(outcome)
  local payload, id = outcome[10], outcome[3]
  redis.call('XADD', names.dead, 'MAXLEN', '~', names.dead_limit, '*', 'task_id', id, 'prompt', payload[6],
    'error', payload[5], 'attempt', string.format('%.0f', outcome[12]), 'lane', outcome[2],
    'next_attempt', string.format('%.0f', outcome[13]), 'job', redis.call('GET', names.job .. id) or '')
  write_end(outcome[2], id, payload, now, true)
  ended = ended + 1
end

-- Whether an earlier try, whose reply got lost, has ended the task already: its own part tells to the microsecond.
local function is_written(outcome)
  local own = outcome[10][4]
  if not own then
    return false
  end
  local written, ending = redis.call('GET', names.result .. outcome[3]), ',"shoal":' .. own .. '}'
  return written and string.sub(written, -#ending) == ending
end

-- Chunks go first, then records: what is refused there ends the call before any task has ended without its records.
local held = {}
for position, outcome in ipairs(request[2]) do
  local id = outcome[3]
  if owns(outcome[2], id, outcome[4]) then
    local list, chunks = KEYS[outcome[5]], outcome[8]
    if #chunks > 0 then
      local many = #chunks / (list and 2 or 1)
      write_chunks(names.chunks .. id, list, outcome[6], outcome[7], chunks, 1, many, outcome[9], keep)
    end
    held[#held + 1] = outcome
  elseif not is_written(outcome) then
    lost[#lost + 1] = position - 1
  end
end
for _, outcome in ipairs(held) do
  add_records(book, records, outcome[15], outcome[14])
end
for _, outcome in ipairs(held) do
  if outcome[1] ~= 'checkpoint' then
    handlers[outcome[1]](outcome)
  end
end
settle_ledger(book, records)
if ended > 0 then
  trim_ended(ended, now)
end
if ready > 0 then
  wake(ready)
end
return lost
