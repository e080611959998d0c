-- Commit finished tasks with all that Shoal writes for each.
-- KEYS: stream, results, usage log. ARGV: msgpack { group, { { entry id, result, content chunk, final chunk, usage
-- record, journal entry }, ... } }
local group, tasks = unpack(cmsgpack.unpack(ARGV[1]))
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local results, ends, records, order, ids = {}, {}, {}, {}, {}
for index, task in ipairs(tasks) do
  local id, result, content, final, record, entry = unpack(task)
  local stream = 'reference:chunks:' .. id
  redis.call('XADD', stream, '1-0', 'chunk', content)
  redis.call('PUBLISH', stream, content)
  redis.call('XADD', stream, '2-0', 'chunk', final)
  redis.call('PUBLISH', stream, final)
  redis.call('PEXPIRE', stream, 3600000)
  redis.call('SET', 'reference:journal:' .. id, entry, 'PX', 86400000)
  redis.call('PUBLISH', 'reference:done:' .. id, result)
  local odd, even = 2 * index - 1, 2 * index
  ids[index] = id
  results[odd], results[even] = id, result
  ends[odd], ends[even] = now, id
  records[odd], records[even] = id .. ':0:0', record
  order[odd], order[even] = now + index / 1000, id .. ':0:0'
end
redis.call('HSET', KEYS[2], unpack(results))
redis.call('ZADD', KEYS[2] .. ':expiry', unpack(ends))
redis.call('HSET', KEYS[3], unpack(records))
redis.call('ZADD', KEYS[3] .. ':order', unpack(order))
for _, total in ipairs({ 'reference:total:day', 'reference:total:model' }) do
  for _, field in ipairs({ 'calls', 'unpriced_calls', 'input_tokens', 'output_tokens' }) do
    redis.call('HINCRBY', total, field, #tasks)
  end
  redis.call('PEXPIRE', total, 7776000000)
end
redis.call('XACK', KEYS[1], group, unpack(ids))
redis.call('XDEL', KEYS[1], unpack(ids))
