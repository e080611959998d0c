-- Claim jobs: first those whose lease has run out, then those that were handed back, then due ones, the most urgent
-- lane first.
--
-- ARGV  1    msgpack { names, consumer, limit, number of this call, serial of the first new token,
--                      take over expired leases or not, when this was sent by the server's own clock in ms or 0 }
-- Reply: { paused 0/1, ms until the next one is due or -1, the server's clock,
--          { { lane, id, token, job or nil, try, crashes, next_attempt, claims, first 0/1, cancel asked 0/1 }, ... } }
-- Atomic because a job must be one worker's, and arq's own workers look at the same marks.
--
-- A call whose reply got lost is repeated under its number: it gives what was claimed then.

local consumer, limit, number, serial = request[2], request[3], request[4], request[5]
local now = now_ms()
local may_take_over = request[6] and not (request[7] > 0 and now - request[7] > names.lease_ms / 2)
local claimed, memory = {}, {}
local any_abort = redis.call('EXISTS', names.abort) == 1
local remembered = names.pullers .. consumer

local function facts(lane, id, token)
  local known = redis.call('HMGET', names.runs .. id, 'crashes', 'next_attempt', 'claims', 'had')
  return {
    lane, id, token, redis.call('GET', names.job .. id), number_in(redis.call('GET', names.retry .. id), 1),
    number_in(known[1], 0), number_in(known[2], 0), number_in(known[3], 1), known[4] and 0 or 1,
    any_abort and redis.call('ZSCORE', names.abort, id) and 1 or 0,
  }
end

local last = redis.call('GET', remembered)
last = last and cmsgpack.unpack(last)
if last and last[1] == number then
  for _, held in ipairs(last[2]) do
    if owns(held[1], held[2], held[3]) then
      claimed[#claimed + 1] = facts(held[1], held[2], held[3])
    end
  end
  return { 0, -1, now, claimed }
end
if redis.call('EXISTS', names.paused) == 1 then
  return { 1, -1, now, {} }
end
even_when_full(names.dead)

-- `had`: somebody has had the task before, so something of it may have been written.
local function claim(lane, id, score, crashed)
  local run, token = names.runs .. id, string.format('%d/%.0f/%s', lane, serial + #claimed, consumer)
  if redis.call('EXISTS', run) == 1 then
    redis.call('HSET', run, 'had', '1')
  else
    redis.call('DEL', names.chunks .. id) -- of an earlier job under the same id, which has ended long ago
  end
  redis.call('HSET', run, 'token', token, 'lane', lane, 'started', string.format('%.0f', now))
  redis.call('HINCRBY', run, 'claims', 1)
  if crashed then
    redis.call('HINCRBY', run, 'crashes', 1)
  else
    redis.call('HSET', run, 'score', score)
  end
  redis.call('PEXPIRE', run, keep.unfinished_ms)
  redis.call('ZREM', names.front, id)
  redis.call('INCR', names.retry .. id)
  redis.call('EXPIRE', names.retry .. id, names.retry_s)
  hold(lane, id, token, now + names.lease_ms)
  claimed[#claimed + 1] = facts(lane, id, token)
  memory[#memory + 1] = { lane, id, token }
end

-- One's own task may be running all the same, about to be renewed after a machine's sleep: one more lease for it.
local function take_over(id, expired_at)
  local known = redis.call('HMGET', names.runs .. id, 'lane', 'token')
  local lane, token = tonumber(known[1] or ''), known[2]
  local mark = redis.call('GET', names.progress .. id)
  if not lane or not redis.call('ZSCORE', names.lanes[lane], id) or (mark and mark ~= token) then
    redis.call('ZREM', names.running, id) -- a worker of arq's own has it, or has ended it
  elseif not mark and (string.sub(token, -#consumer - 1) ~= '/' .. consumer or expired_at + names.lease_ms <= now) then
    claim(lane, id, nil, true)
  end
end

if may_take_over then
  local expired = redis.call('ZRANGEBYSCORE', names.running, '-inf', now, 'WITHSCORES', 'LIMIT', 0, limit + 200)
  for position = 1, #expired, 2 do
    if #claimed < limit then
      take_over(expired[position], tonumber(expired[position + 1]))
    end
  end
end

-- They are where they were in their own queue, whose name arq's clients know them by, but may come before all others.
local function take_front(id)
  local lane = tonumber(redis.call('HGET', names.runs .. id, 'lane') or '')
  local score = lane and redis.call('ZSCORE', names.lanes[lane], id)
  redis.call('ZREM', names.front, id)
  if not score or redis.call('EXISTS', names.progress .. id) == 1 or redis.call('ZSCORE', names.running, id) then
    return -- a worker of arq's own has it, or has ended it
  elseif any_abort and redis.call('ZSCORE', names.abort, id) then
    end_cancelled(lane, id, nil, now)
  else
    claim(lane, id, score, false)
  end
end

local front = redis.call('ZRANGE', names.front, 0, 0)
while #claimed < limit and front[1] do
  take_front(front[1])
  front = redis.call('ZRANGE', names.front, 0, 0)
end

-- arq's clients round a moment to the nearest millisecond, this clock rounds it down: what came just now is due.
local due_at = now + 1

-- Those passed over are in progress at a worker of arq's own, or wait to be taken over: few, whatever the depth.
local function take_due(lane)
  local passed = 0
  while #claimed < limit and passed < 2000 do
    local asked = limit - #claimed + 50
    local due = redis.call('ZRANGEBYSCORE', names.lanes[lane], '-inf', due_at, 'WITHSCORES', 'LIMIT', passed, asked)
    for position = 1, #due, 2 do
      local id = due[position]
      if #claimed == limit then
        return
      elseif redis.call('ZSCORE', names.running, id) or redis.call('EXISTS', names.progress .. id) == 1 then
        passed = passed + 1
      elseif any_abort and redis.call('ZSCORE', names.abort, id) then
        end_cancelled(lane, id, nil, now)
      else
        claim(lane, id, due[position + 1], false)
      end
    end
    if #due < 2 * asked then
      return
    end
  end
end

for lane = 1, 3 do
  take_due(lane)
end
if #claimed > 0 then
  redis.call('SET', remembered, cmsgpack.pack({ number, memory }), 'PX', names.lease_ms + 60000)
end
if #claimed == limit then
  return { 0, -1, now, claimed }
end
redis.call('DEL', names.wake) -- there is nothing left that anybody would have to be woken for
local next_due = -1
for lane = 1, 3 do
  local later = '(' .. string.format('%.0f', due_at)
  local head = redis.call('ZRANGEBYSCORE', names.lanes[lane], later, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  local wait_ms = head[2] and tonumber(head[2]) - now
  if wait_ms and (next_due < 0 or wait_ms < next_due) then
    next_due = wait_ms
  end
end
return { 0, next_due, now, claimed }
