-- Ask for every command that the scripts use, with nothing at stake: one that an ACL refuses in the middle of a script
-- would leave half of its work behind.
--
-- KEYS  1    a name that nothing else uses
--       2-   one name of each kind that a queue has
-- Reply: the commands that are forbidden.
-- Atomic because nobody shall see the key that it makes.

local key, forbidden = KEYS[1], {}

local function ask(command, ...)
  local reply = redis.pcall(command, ...)
  local said = type(reply) == 'table' and reply.err or ''
  if string.find(said, 'NOPERM', 1, true) or string.find(said, "permission", 1, true)
    or string.find(said, "can't run", 1, true) or string.find(said, "can't access", 1, true) then
    forbidden[#forbidden + 1] = command
  end
end

-- The first one makes a hash, so that those for other types meet the wrong one and change nothing.
ask('HSET', key, 'a', '1')
ask('PEXPIRE', key, 1000)
ask('PTTL', key)
ask('HGET', key, 'a')
ask('HEXISTS', key, 'a')
ask('HSETNX', key, 'a', '1')
ask('HINCRBY', key, 'a', '1')
ask('HDEL', key, 'b')
ask('TIME')
ask('EXISTS', key)
ask('GET', key)
ask('PUBLISH', key, '')
ask('LLEN', key)
ask('RPUSH', key, '')
ask('ZADD', key, 1, 'a')
ask('ZREM', key, 'a')
ask('ZCARD', key)
ask('ZSCORE', key, 'a')
ask('ZRANGE', key, 0, 0)
ask('ZREVRANGE', key, 0, 0)
ask('ZRANGEBYSCORE', key, 0, 0)
ask('XADD', key, '*', 'a', '1')
ask('XDEL', key, '0-1')
ask('XLEN', key)
ask('XINFO', 'GROUPS', key)
ask('XTRIM', key, 'MAXLEN', 1)
ask('XRANGE', key, '-', '+')
ask('XREVRANGE', key, '+', '-')
ask('XACK', key, 'a', '0-1')
ask('XCLAIM', key, 'a', 'a', 0, '0-1')
ask('XPENDING', key, 'a')
ask('XREADGROUP', 'GROUP', 'a', 'a', 'STREAMS', key, '>')
ask('SET', key, '')
ask('DEL', key)
return forbidden
