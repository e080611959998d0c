-- Take away what ended tasks have left, as when its time is over.
-- KEYS  results, their expiry, usage log, its index
-- ARGV  what replay streams begin with, what journals begin with; ids of the tasks
for position = 3, #ARGV do
  local id = ARGV[position]
  local call = id .. ':0:0'
  redis.call('HDEL', KEYS[1], id)
  redis.call('ZREM', KEYS[2], id)
  redis.call('HDEL', KEYS[3], call)
  redis.call('ZREM', KEYS[4], call)
  redis.call('DEL', ARGV[1] .. id, ARGV[2] .. id)
end
