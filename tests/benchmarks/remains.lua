-- Leave what ended tasks leave: result and its expiry, replay stream, journal, usage record.
-- ARGV  number of the first one, how many, which of `result stream journal usage` or `chunks`, characters of a chunk,
--       the queue

local first, count, kinds, chars = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local queue, day_ms = ARGV[5], 86400000
local now = tonumber(redis.call('TIME')[1]) * 1000
local text = string.rep('r', 1024)
local usage = '"provider":"scripted","model":"replay","usage":{"input_tokens":256,"output_tokens":256},' ..
  '"outcome":"completed","started_at":1795253965.5247498,"duration_ms":0,"time_to_first_chunk_ms":0}'
local result = '{"result":"' .. text .. '","input_tokens":256,"output_tokens":256,' ..
  '"usage":{"input_tokens":256,"output_tokens":256},"finished_at":1795253965.5251389,"stop_reason":"end_turn"}'
local done = '"seq":1,"type":"DONE","metadata":{"usage":{"input_tokens":256,"output_tokens":256},"cost_usd":null,' ..
  '"stop_reason":"end_turn"},"is_final":true}'

local function chunk(id, seq, content)
  return string.format('{"task_id":"%s","seq":%d,"type":"CONTENT","content":"%s"}', id, seq, content)
end

local makers = {}

function makers.result(id)
  redis.call('HSET', queue .. '-results', id, result)
  redis.call('ZADD', queue .. ':results-expiry', now, id)
end

function makers.stream(id)
  local key = queue .. ':chunks:' .. id
  redis.call('XADD', key, '1-0', 'chunk', chunk(id, 0, text))
  redis.call('XADD', key, '2-0', 'chunk', '{"task_id":"' .. id .. '",' .. done)
  redis.call('PEXPIRE', key, 3600000)
end

function makers.chunks(id)
  local key, content = queue .. ':chunks:' .. id, string.rep('r', chars)
  for seq = 0, 999 do
    redis.call('XADD', key, (seq + 1) .. '-0', 'chunk', chunk(id, seq, content))
  end
end

function makers.journal(id)
  local key = queue .. ':state:log:journal/' .. id
  local record = '{"id":"' .. id .. ':0:0","task_id":"' .. id .. '",' .. usage
  local entry = '{"kind":"model_call","worker":"worker","turn":0,"attempt":0,"usage":' .. record .. '}'
  redis.call('SET', key, string.format('%.0f 8 call/0/0', now) .. entry, 'PX', day_ms)
end

function makers.usage(id)
  local call = id .. ':0:0'
  redis.call('HSET', queue .. ':state:log:usage', call, '{"id":"' .. call .. '","task_id":"' .. id .. '",' .. usage)
  redis.call('ZADD', queue .. ':state:log-index:usage', now, call)
end

for number = first, first + count - 1 do
  local id = string.format('1700000000%03d-%d', number % 1000, math.floor(number / 1000))
  for kind in string.gmatch(kinds, '%a+') do
    makers[kind](id)
  end
end
