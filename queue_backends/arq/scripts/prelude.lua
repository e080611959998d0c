-- Shared by the scripts on arq's jobs: loaded behind the prelude of queue_backends/redis. The keys are in names.py.
--
-- ARGV  1    msgpack { names, ... }: `names` are the keys, prefixes and options of this queue

local request = cmsgpack.unpack(ARGV[1])
local names = request[1]
local keep = keeping(unpack(names.keep))

-- A result repeats its job's arguments, as arq's own do, unless they are longer than this.
local MOST_REPEATED = 65536
local MOST_WAKES = 64
local RUN_CANCELLED = 'run cancelled'

-- The fence: the token stands where arq has its mark of a job in progress, for as long as the lease lasts. Once that
-- mark has expired the task still is its holder's until anybody claims it: one of ours, which would leave its own
-- token, or a worker of arq's own, which would leave its mark, or take the job from its queue.
local function owns(lane, id, token)
  local mark = redis.call('GET', names.progress .. id)
  if mark then
    return mark == token
  end
  return redis.call('HGET', names.runs .. id, 'token') == token
    and redis.call('ZSCORE', names.lanes[lane], id) ~= false
end

-- The lane that a job waits or runs in; nil if it is in none.
local function lane_with(id)
  for lane = 1, 3 do
    if redis.call('ZSCORE', names.lanes[lane], id) then
      return lane
    end
  end
  return nil
end

-- Until `at` the task is its holder's. The score of a job tells from when on it may be taken, so a running one is
-- among those that are not due: nobody who looks for work needs to pass over it.
local function hold(lane, id, token, at)
  redis.call('SET', names.progress .. id, token, 'PX', names.lease_ms)
  redis.call('ZADD', names.lanes[lane], at, id)
  redis.call('ZADD', names.running, at, id)
end

-- Somebody who waits for work looks again, for each task that has become ready.
local function wake(count)
  for _ = 1, math.min(count, MOST_WAKES) do
    redis.call('LPUSH', names.wake, '1')
  end
  redis.call('LTRIM', names.wake, 0, MOST_WAKES - 1)
  redis.call('PEXPIRE', names.wake, 60000)
end

local function number_in(text, default)
  return text and tonumber(text) or default
end

-- The beginning of a result's JSON, which is the job's own where that can be repeated. Of a name that stands twice in
-- a JSON object, readers take the last: what we add behind is what counts.
local function beginning(job, is_json)
  if job and is_json and #job <= MOST_REPEATED then
    local open = string.match(job, '^(%s*{.*)}%s*$')
    if open then
      return open
    end
  end
  local enqueued = job and string.match(job, '"et":%s*(%d+)%s*}%s*$')
  return '{"f":"run_task","a":[],"k":{},"et":' .. (enqueued and #enqueued <= 15 and enqueued or '0')
end

-- A task ends: its result as arq's clients and ours read it, and nothing else of it stays.
-- ending: { success, JSON of arq's result, kind of error, JSON of our result }
local function write_end(lane, id, ending, now, is_json)
  local key = names.job .. id
  local job = redis.call('GET', key)
  local started = redis.call('HGET', names.runs .. id, 'started')
  local json = table.concat({
    beginning(job, is_json), ',"t":', string.format('%.0f', number_in(redis.call('GET', names.retry .. id), 0)),
    ',"st":', string.format('%.0f', number_in(started, now)), ',"ft":', string.format('%.0f', now),
    ',"q":', cjson.encode(names.lanes[lane]), ',"id":', cjson.encode(id),
    ',"s":', ending[1] and 'true' or 'false', ',"e":', cjson.encode(ending[3]), ',"r":', ending[2],
    ',"shoal":', ending[4], '}',
  })
  redis.call('SET', names.result .. id, json, 'PX', names.result_ms)
  redis.call('DEL', key, names.retry .. id, names.progress .. id, names.runs .. id)
  redis.call('ZREM', names.lanes[lane], id)
  redis.call('ZREM', names.running, id)
  redis.call('ZREM', names.front, id)
  redis.call('ZREM', names.abort, id)
  redis.call('ZADD', names.ended, now, id)
  redis.call('PUBLISH', names.done .. id, '1')
end

-- The index of ended tasks forgets those whose results have expired.
local function trim_ended(ended, now)
  local old = redis.call('ZRANGEBYSCORE', names.ended, '-inf', now - names.result_ms, 'LIMIT', 0,
    math.min(2 * ended + 10, 1000))
  if #old > 0 then
    redis.call('ZREM', names.ended, unpack(old))
  end
end

-- ark's list, if the task names one.
local function list_of(job)
  local kwargs = type(job) == 'table' and job.k
  local list = type(kwargs) == 'table' and kwargs.stream_key
  return type(list) == 'string' and list ~= '' and list or nil
end

-- A task ends as cancelled, outside of any run.
local function end_cancelled(lane, id, spent, now)
  local is_json, job = pcall(cjson.decode, redis.call('GET', names.job .. id) or '')
  end_with_error(names.chunks .. id, is_json and list_of(job) or nil, id, RUN_CANCELLED, keep)
  local result = '{"result":"","error":"run cancelled","input_tokens":0,"output_tokens":0,"finished_at":%.3f}'
  spent = spent or redis.call('HGET', names.runs .. id, 'spent') or nil
  result = with_spent(string.format(result, now / 1000), spent)
  write_end(lane, id, { false, cjson.encode(RUN_CANCELLED), 'CancelledError', result }, now, is_json)
  trim_ended(1, now)
end
