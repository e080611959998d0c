-- Commit finished tasks. KEYS: stream, results, usage log. ARGV: msgpack { group, { { entry id, result, usage }, ... } }
local request = cmsgpack.unpack(ARGV[1])
local ids = {}
for index, task in ipairs(request[2]) do
  redis.call('HSET', KEYS[2], task[1], task[2])
  redis.call('HSETNX', KEYS[3], task[1], task[3])
  local channel = 'reference:chunks:' .. task[1]
  redis.call('XADD', channel, '*', 'chunk', '{"type":"DONE"}')
  redis.call('PEXPIRE', channel, 3600000)
  redis.call('PUBLISH', channel, '{"type":"DONE"}')
  ids[index] = task[1]
end
redis.call('XACK', KEYS[1], request[1], unpack(ids))
redis.call('XDEL', KEYS[1], unpack(ids))
